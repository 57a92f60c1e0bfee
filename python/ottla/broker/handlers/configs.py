"""Configurations: read from the published metadata, changed through the controller; log levels stay in this broker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from ottla.broker.context import RequestContext
from ottla.broker.log_levels import check_log_level, log_levels, set_log_level
from ottla.common.config import ResourceType
from ottla.controller.configuration_control import Operation
from ottla.controller.describe_configs import ConfigDescriber
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages import alter_configs
from ottla.protocol.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResponse
from ottla.protocol.messages.incremental_alter_configs import (
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from ottla.protocol.messages.list_config_resources import (
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)
from ottla.protocol.versions import ApiKey


def _describer(context: RequestContext) -> ConfigDescriber:
    broker = context.broker
    return ConfigDescriber(
        node_id=broker.node_id,
        image=broker.metadata.image,
        static=broker.metadata.config,
        log_levels=log_levels(),
    )


async def handle_describe_configs(context: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse:
    return _describer(context).describe(request)


async def handle_list_config_resources(
    context: RequestContext, request: ListConfigResourcesRequest
) -> ListConfigResourcesResponse:
    return _describer(context).list_resources(request, api_version=context.version)


async def handle_alter_configs(
    context: RequestContext, request: alter_configs.AlterConfigsRequest
) -> alter_configs.AlterConfigsResponse:
    try:
        response: alter_configs.AlterConfigsResponse = await context.broker.controller.handle(request)
    except KafkaError as error:
        return alter_configs.AlterConfigsResponse(
            responses=tuple(
                alter_configs.AlterConfigsResourceResponse(
                    error_code=error.code,
                    error_message=error.message,
                    resource_type=resource.resource_type,
                    resource_name=resource.resource_name,
                )
                for resource in request.resources
            )
        )
    return response


async def handle_incremental_alter_configs(
    context: RequestContext, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    loggers = [r for r in request.resources if r.resource_type == ResourceType.BROKER_LOGGER]
    others = tuple(r for r in request.resources if r.resource_type != ResourceType.BROKER_LOGGER)
    responses: tuple[AlterConfigsResourceResponse, ...] = ()
    if others:
        try:
            response: IncrementalAlterConfigsResponse = await context.broker.controller.handle(
                replace(request, resources=others)
            )
            responses = response.responses
        except KafkaError as error:
            responses = tuple(_response(resource, error) for resource in others)
    counts = Counter(resource.resource_name for resource in loggers)
    return IncrementalAlterConfigsResponse(
        responses=(
            *responses,
            *(
                _alter_log_levels(
                    context, resource, once=counts[resource.resource_name] == 1, really=not request.validate_only
                )
                for resource in loggers
            ),
        )
    )


def _alter_log_levels(
    context: RequestContext, resource: AlterConfigsResource, *, once: bool, really: bool
) -> AlterConfigsResourceResponse:
    try:
        if not once:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "The resource is named more than once.")
        if resource.resource_name != str(context.broker.node_id):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"This is broker {context.broker.node_id}.")
        if len({config.name for config in resource.configs}) != len(resource.configs):
            raise KafkaError(ErrorCode.INVALID_REQUEST, "A logger is named more than once.")
        levels: dict[str, str | None] = {}
        for config in resource.configs:
            deletes = config.config_operation == Operation.DELETE
            if not deletes and config.config_operation != Operation.SET:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "A level can be set or deleted, nothing else.")
            if not deletes and config.value is None:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"{config.name}: there is no value.")
            levels[config.name] = None if deletes else config.value
            check_log_level(config.name, levels[config.name])
    except KafkaError as error:
        return _response(resource, error)
    if really:
        for name, level in levels.items():
            set_log_level(name, level)
    return _response(resource, None)


def _response(resource: AlterConfigsResource, error: KafkaError | None) -> AlterConfigsResourceResponse:
    return AlterConfigsResourceResponse(
        error_code=ErrorCode.NONE if error is None else error.code,
        error_message=None if error is None else error.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )


HANDLERS: Final = {
    ApiKey.DESCRIBE_CONFIGS: handle_describe_configs,
    ApiKey.ALTER_CONFIGS: handle_alter_configs,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: handle_incremental_alter_configs,
    ApiKey.LIST_CONFIG_RESOURCES: handle_list_config_resources,
}

"""ACLs, quotas, SCRAM credentials and delegation tokens on a broker that has none of them: answered, not refused.

Codes and the order of checks are those of a Kafka broker without an authorizer and with plain text listeners.
"""

from __future__ import annotations

from typing import Final

from ottla.broker.connection import Refuse
from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode
from ottla.protocol.messages.create_acls import AclCreationResult, CreateAclsRequest, CreateAclsResponse
from ottla.protocol.messages.create_delegation_token import CreateDelegationTokenRequest, CreateDelegationTokenResponse
from ottla.protocol.messages.delete_acls import DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse
from ottla.protocol.messages.describe_acls import DescribeAclsRequest, DescribeAclsResponse
from ottla.protocol.messages.describe_client_quotas import DescribeClientQuotasRequest, DescribeClientQuotasResponse
from ottla.protocol.messages.describe_delegation_token import (
    DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse,
)
from ottla.protocol.messages.describe_user_scram_credentials import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)
from ottla.protocol.messages.expire_delegation_token import ExpireDelegationTokenRequest, ExpireDelegationTokenResponse
from ottla.protocol.messages.renew_delegation_token import RenewDelegationTokenRequest, RenewDelegationTokenResponse
from ottla.protocol.versions import ApiKey

UNKNOWN: Final = 0
NO_AUTHORIZER: Final = "no authorizer is configured"
TOKENS_NEED_AUTHENTICATION: Final = ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED
"""A client without authentication may not ask about tokens; Kafka checks that before whether tokens are on at all."""
ANONYMOUS: Final = ("User", "ANONYMOUS")

_QUOTA_ENTITIES: Final = {"user", "client-id", "ip"}
MATCH_EXACT: Final = 0
MATCH_DEFAULT: Final = 1
MATCH_ANY: Final = 2
_QUOTA_MATCH_TYPES: Final = {MATCH_EXACT, MATCH_DEFAULT, MATCH_ANY}


async def handle_describe_acls(_context: RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse | Refuse:
    kinds = (request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type)
    if UNKNOWN in kinds:
        return Refuse("DESCRIBE_ACLS asks for an unknown kind")
    return DescribeAclsResponse(error_code=ErrorCode.SECURITY_DISABLED, error_message=NO_AUTHORIZER)


async def handle_create_acls(_context: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse | Refuse:
    for new in request.creations:
        if UNKNOWN in (new.resource_type, new.resource_pattern_type, new.operation, new.permission_type):
            return Refuse("CREATE_ACLS names an unknown kind")
    refused = AclCreationResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=NO_AUTHORIZER)
    return CreateAclsResponse(results=(refused,) * len(request.creations))


async def handle_delete_acls(_context: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse | Refuse:
    for some in request.filters:
        if UNKNOWN in (some.resource_type_filter, some.pattern_type_filter, some.operation, some.permission_type):
            return Refuse("DELETE_ACLS names an unknown kind")
    refused = DeleteAclsFilterResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=NO_AUTHORIZER)
    return DeleteAclsResponse(filter_results=(refused,) * len(request.filters))


async def handle_describe_client_quotas(
    _context: RequestContext, request: DescribeClientQuotasRequest
) -> DescribeClientQuotasResponse:
    seen: set[str] = set()
    for component in request.components:
        kind = component.entity_type
        if not kind:
            return _bad_quotas(ErrorCode.INVALID_REQUEST, "an entity type is missing")
        if kind not in _QUOTA_ENTITIES:
            return _bad_quotas(ErrorCode.UNSUPPORTED_VERSION, f"entity type {kind!r} is not supported")
        if component.match_type not in _QUOTA_MATCH_TYPES:
            return _bad_quotas(ErrorCode.INVALID_REQUEST, f"match type {component.match_type} is unknown")
        if (component.match is None) == (component.match_type == MATCH_EXACT):
            return _bad_quotas(ErrorCode.INVALID_REQUEST, "a name goes with an exact match, and with no other")
        if kind in seen:
            return _bad_quotas(ErrorCode.INVALID_REQUEST, f"entity type {kind!r} appears more than once")
        seen.add(kind)
    if "ip" in seen and len(seen) > 1:
        return _bad_quotas(ErrorCode.INVALID_REQUEST, "entity type 'ip' goes with no other")
    return DescribeClientQuotasResponse(error_message="")


def _bad_quotas(code: ErrorCode, message: str) -> DescribeClientQuotasResponse:
    return DescribeClientQuotasResponse(error_code=code, error_message=message, entries=None)


async def handle_describe_user_scram_credentials(
    _context: RequestContext, request: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    names = [user.name for user in request.users or ()]
    results = []
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            code, message = ErrorCode.DUPLICATE_RESOURCE, f"user {name!r} is named more than once"
        else:
            code, message = ErrorCode.RESOURCE_NOT_FOUND, f"user {name!r} has no SCRAM credentials"
        results.append(DescribeUserScramCredentialsResult(user=name, error_code=code, error_message=message))
    return DescribeUserScramCredentialsResponse(error_message="", results=tuple(results))


async def handle_create_delegation_token(
    _context: RequestContext, _request: CreateDelegationTokenRequest
) -> CreateDelegationTokenResponse:
    kind, name = ANONYMOUS
    return CreateDelegationTokenResponse(
        error_code=TOKENS_NEED_AUTHENTICATION,
        principal_type=kind,
        principal_name=name,
        token_requester_principal_type=kind,
        token_requester_principal_name=name,
    )


async def handle_renew_delegation_token(
    _context: RequestContext, _request: RenewDelegationTokenRequest
) -> RenewDelegationTokenResponse:
    return RenewDelegationTokenResponse(error_code=TOKENS_NEED_AUTHENTICATION)


async def handle_expire_delegation_token(
    _context: RequestContext, _request: ExpireDelegationTokenRequest
) -> ExpireDelegationTokenResponse:
    return ExpireDelegationTokenResponse(error_code=TOKENS_NEED_AUTHENTICATION)


async def handle_describe_delegation_token(
    _context: RequestContext, _request: DescribeDelegationTokenRequest
) -> DescribeDelegationTokenResponse:
    return DescribeDelegationTokenResponse(error_code=TOKENS_NEED_AUTHENTICATION)


HANDLERS: Final = {
    ApiKey.DESCRIBE_ACLS: handle_describe_acls,
    ApiKey.CREATE_ACLS: handle_create_acls,
    ApiKey.DELETE_ACLS: handle_delete_acls,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: handle_describe_client_quotas,
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: handle_describe_user_scram_credentials,
    ApiKey.CREATE_DELEGATION_TOKEN: handle_create_delegation_token,
    ApiKey.RENEW_DELEGATION_TOKEN: handle_renew_delegation_token,
    ApiKey.EXPIRE_DELEGATION_TOKEN: handle_expire_delegation_token,
    ApiKey.DESCRIBE_DELEGATION_TOKEN: handle_describe_delegation_token,
}

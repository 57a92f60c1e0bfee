import java.time.Duration;
import java.util.*;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;

/**
 * Checks of groups with the protocol of KIP-848 (group.protocol=consumer). Usage: ConsumerGroups BOOTSTRAP, or
 * ConsumerGroups BOOTSTRAP survive. Prints what Battery prints.
 */
public final class ConsumerGroups {
    private static final Object[] MODERN = {"group.protocol", "consumer"};

    public static void main(String[] args) throws Exception {
        Battery.connect(args[0]);
        if (args.length > 1) {
            Battery.report("survives a kill", () -> Survival.run(MODERN));
        } else {
            for (String assignor : List.of("uniform", "range"))
                Battery.report("group with " + assignor, () -> group(assignor));
            Battery.report("static membership", ConsumerGroups::staticMembership);
            Battery.report("regular expressions", ConsumerGroups::expressions);
            Battery.report("new partitions", ConsumerGroups::newPartitions);
            Battery.report("commit and resume", ConsumerGroups::resume);
            Battery.report("administration", ConsumerGroups::administration);
            Battery.report("group configs", ConsumerGroups::configs);
        }
        System.exit(0);
    }

    static Consumer<String, String> consumer(String group, Object... settings) {
        List<Object> all = new ArrayList<>(Arrays.asList(MODERN));
        all.addAll(Arrays.asList(settings));
        return Battery.consumer(group, all.toArray());
    }

    static void group(String assignor) throws Exception {
        String topic = Battery.topic("848 " + assignor, 6), group = Battery.name("848 " + assignor);
        Object[] settings = {"group.remote.assignor", assignor};
        try (Consumer<String, String> one = consumer(group, settings)) {
            one.subscribe(List.of(topic));
            try (Consumer<String, String> two = consumer(group, settings)) {
                two.subscribe(List.of(topic));
                Battery.settle(List.of(one, two), 3);
                Set<TopicPartition> all = new HashSet<>(one.assignment());
                all.addAll(two.assignment());
                Battery.expect(6, all.size());
                ConsumerGroupDescription described = describe(group);
                Battery.expect(assignor, described.partitionAssignor());
                Battery.fill(topic, 600, 6);
                List<String> seen = new ArrayList<>(Battery.values(Battery.poll(one, 300)));
                seen.addAll(Battery.values(Battery.poll(two, 300)));
                Battery.expect(new HashSet<>(Battery.numbered(0, 600)), new HashSet<>(seen));
                Battery.expect(600, seen.size());
                one.commitSync();
                two.commitSync();
            }
            Battery.settle(List.of(one), 6);
            Battery.fill(topic, 6, 6);
            Battery.expect(6, Battery.poll(one, 6).size());
        }
    }

    static void staticMembership() throws Exception {
        String topic = Battery.topic("848 static", 4), group = Battery.name("848 static");
        try (Consumer<String, String> one = consumer(group, "group.instance.id", "a")) {
            one.subscribe(List.of(topic));
            Set<TopicPartition> held;
            try (Consumer<String, String> two = consumer(group, "group.instance.id", "b")) {
                two.subscribe(List.of(topic));
                Battery.settle(List.of(one, two), 2);
                held = two.assignment();
            }
            try (Consumer<String, String> back = consumer(group, "group.instance.id", "b")) {
                back.subscribe(List.of(topic));
                Battery.settle(List.of(one, back), 2);
                Battery.expect(held, back.assignment());
            }
            try (Consumer<String, String> back = consumer(group, "group.instance.id", "b")) {
                back.subscribe(List.of(topic));
                Battery.settle(List.of(one, back), 2);
                try (Consumer<String, String> double_ = consumer(group, "group.instance.id", "b")) {
                    double_.subscribe(List.of(topic));
                    Battery.expectError(UnreleasedInstanceIdException.class, () -> {
                        for (int i = 0; i < 100; i++) double_.poll(Duration.ofMillis(100));
                    });
                }
            }
        }
    }

    static void expressions() throws Exception {
        String first = Battery.topic("848 matched one", 1), group = Battery.name("848 expressions");
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(new SubscriptionPattern("848-matched-(one|two)-" + Battery.RUN));
            Battery.settle(List.of(consumer), 1);
            Battery.expect(Set.of(new TopicPartition(first, 0)), consumer.assignment());
            String second = Battery.topic("848 matched two", 2);
            Battery.settle(List.of(consumer), 3);
            Battery.fill(second, 10, 2);
            Battery.expect(10, Battery.poll(consumer, 10).size());
        }
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(new SubscriptionPattern("("));
            Battery.expectError(InvalidRegularExpression.class, () -> {
                for (int i = 0; i < 100; i++) consumer.poll(Duration.ofMillis(100));
            });
        }
        // An expression of Java is matched by the client, which subscribes to the names.
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(Pattern.compile("848-matched-(?=o).*" + Battery.RUN));
            Battery.settle(List.of(consumer), 1);
        }
    }

    static void newPartitions() throws Exception {
        String topic = Battery.topic("848 growing", 1), group = Battery.name("848 growing");
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            Battery.settle(List.of(consumer), 1);
            Battery.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
            Battery.settle(List.of(consumer), 3);
        }
    }

    static void resume() throws Exception {
        String topic = Battery.topic("848 resume", 1), group = Battery.name("848 resuming");
        TopicPartition partition = new TopicPartition(topic, 0);
        Battery.fill(topic, 10, 1);
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            Battery.poll(consumer, 10);
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(4, Optional.of(0), "note")));
            Battery.expect(new OffsetAndMetadata(4, Optional.of(0), "note"), consumer.committed(Set.of(partition)).get(partition));
        }
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            Battery.expect(Battery.numbered(4, 10), Battery.values(Battery.poll(consumer, 6)));
        }
    }

    static ConsumerGroupDescription describe(String group) throws Exception {
        return Battery.admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    static void administration() throws Exception {
        String topic = Battery.topic("848 groups", 1), group = Battery.name("848 described");
        TopicPartition partition = new TopicPartition(topic, 0);
        Battery.fill(topic, 10, 1);
        try (Consumer<String, String> consumer = consumer(group, "client.id", "the client")) {
            consumer.subscribe(List.of(topic));
            Battery.poll(consumer, 10);
            consumer.commitSync();
            ConsumerGroupDescription described = describe(group);
            Battery.expect(GroupState.STABLE, described.groupState());
            Battery.expect(GroupType.CONSUMER, described.type());
            Battery.expect(Optional.of(2), described.groupEpoch());
            MemberDescription member = described.members().iterator().next();
            Battery.expect("the client", member.clientId());
            Battery.expect(Set.of(partition), member.assignment().topicPartitions());
            Battery.expect(Set.of(partition), member.targetAssignment().get().topicPartitions());
            Battery.expectError(GroupNotEmptyException.class, () -> Battery.admin.deleteConsumerGroups(List.of(group)).all().get());
            Battery.expectError(UnknownMemberIdException.class, () -> Battery.admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(3))).all().get());
        }
        Set<String> listed = Battery.admin.listGroups(ListGroupsOptions.forConsumerGroups().withTypes(Set.of(GroupType.CONSUMER))).all().get()
            .stream().map(GroupListing::groupId).collect(Collectors.toSet());
        Battery.expect(true, listed.contains(group));
        Battery.admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(3))).all().get();
        Battery.expect(3L, Battery.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset());
        Battery.admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
        Battery.admin.deleteConsumerGroups(List.of(group)).all().get();
        Battery.expectError(GroupIdNotFoundException.class, () -> describe(group));
    }

    static void configs() throws Exception {
        String group = Battery.name("848 configured");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("consumer.heartbeat.interval.ms", "6000"), AlterConfigOp.OpType.SET);
        Battery.admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        Battery.expect("6000", Battery.admin.describeConfigs(List.of(resource)).all().get().get(resource).get("consumer.heartbeat.interval.ms").value());
        AlterConfigOp low = new AlterConfigOp(new ConfigEntry("consumer.session.timeout.ms", "1"), AlterConfigOp.OpType.SET);
        Battery.expectError(InvalidConfigurationException.class, () -> Battery.admin.incrementalAlterConfigs(Map.of(resource, List.of(low))).all().get());
    }

    private ConsumerGroups() {}
}

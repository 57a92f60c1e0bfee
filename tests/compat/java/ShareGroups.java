import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Checks of share groups (KIP-932). Usage: ShareGroups BOOTSTRAP, or ShareGroups BOOTSTRAP survive. Prints what Battery
 * prints.
 */
public final class ShareGroups {
    private static final int COUNT = 5_000;

    public static void main(String[] args) throws Exception {
        Battery.connect(args[0]);
        Map<String, FeatureUpdate> on = Map.of("share.version", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE));
        Battery.admin.updateFeatures(on, new UpdateFeaturesOptions()).all().get();
        if (args.length > 1) {
            Battery.report("survives a kill", ShareGroups::survive);
        } else {
            Battery.report("implicit acknowledgement", ShareGroups::implicit);
            Battery.report("explicit acknowledgement", ShareGroups::explicit);
            Battery.report("release and delivery count", ShareGroups::release);
            Battery.report("reject", ShareGroups::reject);
            Battery.report("renew", ShareGroups::renew);
            Battery.report("two consumers, one partition", ShareGroups::together);
            Battery.report("administration", ShareGroups::administration);
        }
        System.exit(0);
    }

    /** A member of a group that begins with the oldest record. */
    static ShareConsumer<String, String> consumer(String group, String topic, Object... settings) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        AlterConfigOp earliest = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
        Battery.admin.incrementalAlterConfigs(Map.of(resource, List.of(earliest))).all().get();
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", Battery.bootstrap, "group.id", group));
        for (int i = 0; i < settings.length; i += 2) all.put((String) settings[i], settings[i + 1]);
        ShareConsumer<String, String> found = new KafkaShareConsumer<>(all, new StringDeserializer(), new StringDeserializer());
        found.subscribe(List.of(topic));
        return found;
    }

    static ShareConsumer<String, String> explicitly(String group, String topic) throws Exception {
        return consumer(group, topic, "share.acknowledgement.mode", "explicit");
    }

    /** Polls until there are records. */
    static List<ConsumerRecord<String, String>> some(ShareConsumer<String, String> consumer) {
        long deadline = System.nanoTime() + Battery.PATIENCE.toNanos();
        while (System.nanoTime() < deadline) {
            List<ConsumerRecord<String, String>> found = new ArrayList<>();
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
            if (!found.isEmpty()) return found;
        }
        throw new AssertionError("no records");
    }

    static void commit(ShareConsumer<String, String> consumer) {
        consumer.commitSync().forEach((partition, error) -> error.ifPresent(found -> {
            throw new AssertionError(partition + ": " + found);
        }));
    }

    static void nothing(ShareConsumer<String, String> consumer) {
        for (int i = 0; i < 5; i++) Battery.expect(0, consumer.poll(Duration.ofMillis(200)).count());
    }

    static void implicit() throws Exception {
        String topic = Battery.topic("shared implicit", 1), group = Battery.name("sharing implicit");
        Battery.fill(topic, 100, 1);
        List<String> seen = new ArrayList<>();
        try (ShareConsumer<String, String> consumer = consumer(group, topic)) {
            while (seen.size() < 100) some(consumer).forEach(record -> seen.add(record.value()));
            commit(consumer);
        }
        Battery.expect(Battery.numbered(0, 100), seen);
        try (ShareConsumer<String, String> consumer = consumer(group, topic)) {
            nothing(consumer);
        }
    }

    static void explicit() throws Exception {
        String topic = Battery.topic("shared explicit", 1), group = Battery.name("sharing explicit");
        Battery.fill(topic, 10, 1);
        try (ShareConsumer<String, String> consumer = explicitly(group, topic)) {
            List<ConsumerRecord<String, String>> records = some(consumer);
            Battery.expect(10, records.size());
            for (ConsumerRecord<String, String> record : records) consumer.acknowledge(record, AcknowledgeType.ACCEPT);
            commit(consumer);
            nothing(consumer);
        }
        Battery.fill(topic, 1, 1);
        try (ShareConsumer<String, String> consumer = explicitly(group, topic)) {
            List<ConsumerRecord<String, String>> records = some(consumer);
            Battery.expect(1, records.size());
            try {
                consumer.poll(Duration.ofMillis(200));
                throw new AssertionError("it may go on with records that it has not acknowledged");
            } catch (IllegalStateException expected) {
                consumer.acknowledge(records.get(0));
            }
        }
    }

    static void release() throws Exception {
        String topic = Battery.topic("shared release", 1), group = Battery.name("sharing release");
        Battery.fill(topic, 1, 1);
        try (ShareConsumer<String, String> consumer = explicitly(group, topic)) {
            for (short delivery = 1; delivery <= 5; delivery++) {
                ConsumerRecord<String, String> record = some(consumer).get(0);
                Battery.expect(Optional.of(delivery), record.deliveryCount());
                consumer.acknowledge(record, AcknowledgeType.RELEASE);
                commit(consumer);
            }
            nothing(consumer); // it was delivered as often as a record may be
        }
    }

    static void reject() throws Exception {
        String topic = Battery.topic("shared reject", 1), group = Battery.name("sharing reject");
        Battery.fill(topic, 2, 1);
        try (ShareConsumer<String, String> consumer = explicitly(group, topic)) {
            List<ConsumerRecord<String, String>> records = some(consumer);
            consumer.acknowledge(records.get(0), AcknowledgeType.REJECT);
            consumer.acknowledge(records.get(1), AcknowledgeType.RELEASE);
            commit(consumer);
            List<ConsumerRecord<String, String>> again = some(consumer);
            Battery.expect(List.of("value 1"), Battery.values(again));
            consumer.acknowledge(again.get(0), AcknowledgeType.ACCEPT);
            commit(consumer);
        }
    }

    static void renew() throws Exception {
        String topic = Battery.topic("shared renew", 1), group = Battery.name("sharing renew");
        Battery.fill(topic, 1, 1);
        try (ShareConsumer<String, String> consumer = explicitly(group, topic)) {
            ConsumerRecord<String, String> record = some(consumer).get(0);
            Battery.expect(Optional.of(30_000), consumer.acquisitionLockTimeoutMs());
            consumer.acknowledge(record, AcknowledgeType.RENEW);
            commit(consumer);
            ConsumerRecord<String, String> same = some(consumer).get(0); // a renewed record comes back without a new delivery
            Battery.expect(record.offset(), same.offset());
            Battery.expect(Optional.of((short) 1), same.deliveryCount());
            consumer.acknowledge(same, AcknowledgeType.ACCEPT);
            commit(consumer);
            nothing(consumer);
        }
    }

    static void together() throws Exception {
        String topic = Battery.topic("shared together", 1), group = Battery.name("sharing together");
        Set<String> one = new HashSet<>(), two = new HashSet<>();
        try (ShareConsumer<String, String> first = consumer(group, topic, "max.poll.records", 10);
             ShareConsumer<String, String> second = consumer(group, topic, "max.poll.records", 10)) {
            long deadline = System.nanoTime() + Battery.PATIENCE.toNanos();
            int sent = 0;
            while ((one.isEmpty() || two.isEmpty()) && System.nanoTime() < deadline) {
                Battery.fill(topic, 50, 1);
                sent += 50;
                first.poll(Duration.ofMillis(100)).forEach(record -> one.add(record.offset() + ""));
                second.poll(Duration.ofMillis(100)).forEach(record -> two.add(record.offset() + ""));
            }
            while (one.size() + two.size() < sent && System.nanoTime() < deadline) {
                first.poll(Duration.ofMillis(100)).forEach(record -> one.add(record.offset() + ""));
                second.poll(Duration.ofMillis(100)).forEach(record -> two.add(record.offset() + ""));
            }
            Battery.expect(true, !one.isEmpty() && !two.isEmpty());
            Battery.expect(sent, one.size() + two.size());
            Battery.expect(true, Collections.disjoint(one, two));
            commit(first);
            commit(second);
        }
    }

    static void administration() throws Exception {
        String topic = Battery.topic("shared groups", 1), group = Battery.name("sharing described");
        Battery.fill(topic, 10, 1);
        try (ShareConsumer<String, String> consumer = consumer(group, topic, "client.id", "the client")) {
            some(consumer);
            commit(consumer);
            ShareGroupDescription described = Battery.admin.describeShareGroups(List.of(group)).all().get().get(group);
            Battery.expect(GroupState.STABLE, described.groupState());
            ShareMemberDescription member = described.members().iterator().next();
            Battery.expect("the client", member.clientId());
            Battery.expect(1, member.assignment().topicPartitions().size());
            Battery.expectError(GroupNotEmptyException.class, () -> Battery.admin.deleteShareGroups(List.of(group)).all().get());
        }
        Battery.admin.deleteShareGroups(List.of(group)).all().get();
        Battery.expectError(GroupIdNotFoundException.class, () -> Battery.admin.describeShareGroups(List.of(group)).all().get());
    }

    /** Everything that was produced arrives at least once while the broker is killed and started again. */
    static void survive() throws Exception {
        String topic = Battery.topic("shared killed", 1), group = Battery.name("sharing survivors");
        Set<String> wanted = new HashSet<>(Battery.numbered(0, COUNT)), seen = new HashSet<>();
        try (Producer<String, String> producer = Battery.producer("delivery.timeout.ms", 60_000, "reconnect.backoff.max.ms", 500);
             ShareConsumer<String, String> consumer = consumer(group, topic, "reconnect.backoff.max.ms", 500)) {
            for (int i = 0; i < COUNT; i++) {
                producer.send(new ProducerRecord<>(topic, 0, "k", "value " + i));
                if (i == COUNT / 4) {
                    producer.flush();
                    some(consumer).forEach(record -> seen.add(record.value()));
                    consumer.commitSync();
                    System.out.println("now");
                    System.out.flush();
                }
                if (i % 10 == 0) Thread.sleep(2);
            }
            producer.flush();
            // Records that a member had when the broker died come back when their locks have timed out.
            long deadline = System.nanoTime() + Duration.ofSeconds(90).toNanos();
            while (!seen.equals(wanted) && System.nanoTime() < deadline)
                consumer.poll(Duration.ofMillis(100)).forEach(record -> seen.add(record.value()));
            consumer.commitSync();
        }
        Battery.expect(wanted, seen);
    }

    private ShareGroups() {}
}

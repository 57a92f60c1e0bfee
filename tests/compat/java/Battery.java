import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

/**
 * Checks of the Java producer, consumer and admin client against one broker, all in one JVM, as each start costs
 * seconds. Usage: Battery BOOTSTRAP, or Battery BOOTSTRAP survive. Prints a line for each check: its name, a tab, and
 * "ok" or what went wrong.
 */
public final class Battery {
    static final Duration PATIENCE = Duration.ofSeconds(30);
    static final String RUN = Long.toString(System.nanoTime(), 36);
    static String bootstrap;
    static Admin admin;

    interface Check {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        connect(args[0]);
        if (args.length > 1) {
            report("survives a kill", () -> Survival.run());
        } else {
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd"))
                report("round trip " + codec, () -> roundTrip(codec));
            for (String acks : List.of("0", "1", "all"))
                report("acks " + acks, () -> acknowledgements(acks));
            report("keys, headers and timestamps", Battery::headers);
            report("automatic topics", Battery::automaticTopics);
            report("offsets and seeking", Battery::seeking);
            report("commit and resume", Battery::resume);
            for (Class<?> assignor : List.of(RangeAssignor.class, RoundRobinAssignor.class, StickyAssignor.class, CooperativeStickyAssignor.class))
                report("group with " + assignor.getSimpleName(), () -> group(assignor));
            report("static membership", Battery::staticMembership);
            report("topics", Battery::topics);
            report("configs", Battery::configs);
            report("groups", Battery::groups);
            report("records are deleted", Battery::deleteRecords);
            report("cluster", Battery::cluster);
            report("refused producers", Battery::refused);
        }
        System.exit(0);
    }

    static void connect(String servers) {
        bootstrap = servers;
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    static void report(String name, Check check) {
        String outcome = "ok";
        try {
            check.run();
        } catch (Throwable error) {
            outcome = error.toString();
            for (StackTraceElement frame : error.getStackTrace())
                if (frame.getFileName() != null && frame.getFileName().matches("(Battery|Survival|Transactions|ConsumerGroups).java"))
                    outcome += " at " + frame.getFileName() + ":" + frame.getLineNumber();
        }
        System.out.println(name + "\t" + outcome.replaceAll("\\s+", " "));
        System.out.flush();
    }

    static void expect(Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) throw new AssertionError("expected " + wanted + ", found " + found);
    }

    static void expectError(Class<? extends Throwable> wanted, Check check) throws Exception {
        try {
            check.run();
        } catch (ExecutionException error) {
            expect(wanted, error.getCause().getClass());
            return;
        } catch (KafkaException error) {
            expect(wanted, error.getClass());
            return;
        }
        throw new AssertionError("expected " + wanted.getSimpleName());
    }

    static String name(String stem) {
        return stem.replace(' ', '-') + "-" + RUN;
    }

    static String topic(String stem, int partitions) throws Exception {
        String topic = name(stem);
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get(20, TimeUnit.SECONDS);
        return topic;
    }

    static Producer<String, String> producer(Object... settings) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", 5));
        for (int i = 0; i < settings.length; i += 2) all.put((String) settings[i], settings[i + 1]);
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    static Consumer<String, String> consumer(String group, Object... settings) {
        Map<String, Object> all = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "auto.offset.reset", "earliest", "enable.auto.commit", false,
            "session.timeout.ms", 6000, "heartbeat.interval.ms", 500, "group.id", group));
        if (List.of(settings).contains("group.protocol")) all.keySet().removeAll(List.of("session.timeout.ms", "heartbeat.interval.ms"));
        for (int i = 0; i < settings.length; i += 2) all.put((String) settings[i], settings[i + 1]);
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    static void fill(String topic, int count, int partitions, Object... settings) throws Exception {
        try (Producer<String, String> producer = producer(settings)) {
            AtomicReference<Exception> failed = new AtomicReference<>();
            for (int i = 0; i < count; i++)
                producer.send(new ProducerRecord<>(topic, i % partitions, "key" + i, "value " + i), (metadata, error) -> {
                    if (error != null) failed.set(error);
                });
            producer.flush();
            if (failed.get() != null) throw failed.get();
        }
    }

    static List<ConsumerRecord<String, String>> poll(Consumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (found.size() < count) {
            if (System.nanoTime() > deadline) throw new AssertionError(found.size() + " of " + count + " records");
            consumer.poll(Duration.ofMillis(100)).forEach(found::add);
        }
        return found;
    }

    static List<String> numbered(int from, int to) {
        return IntStream.range(from, to).mapToObj(i -> "value " + i).toList();
    }

    static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    static void roundTrip(String codec) throws Exception {
        String topic = topic("codec " + codec, 1);
        fill(topic, 1000, 1, "compression.type", codec);
        try (Consumer<String, String> consumer = consumer(name("g"))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            expect(numbered(0, 1000), values(poll(consumer, 1000)));
        }
    }

    static void acknowledgements(String acks) throws Exception {
        String topic = topic("acks " + acks, 1);
        fill(topic, 100, 1, "acks", acks, "enable.idempotence", acks.equals("all"));
        try (Consumer<String, String> consumer = consumer(name("g"))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            expect(numbered(0, 100), values(poll(consumer, 100)));
        }
    }

    static void headers() throws Exception {
        String topic = topic("headers", 1);
        try (Producer<String, String> producer = producer()) {
            var headers = List.<org.apache.kafka.common.header.Header>of(
                new RecordHeader("trace", new byte[] {0, -1}), new RecordHeader("trace", null));
            producer.send(new ProducerRecord<>(topic, 0, 1_700_000_000_123L, "k", null, headers)).get();
        }
        try (Consumer<String, String> consumer = consumer(name("g"))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            ConsumerRecord<String, String> record = poll(consumer, 1).get(0);
            expect("k", record.key());
            expect(null, record.value());
            expect(1_700_000_000_123L, record.timestamp());
            expect(2, record.headers().toArray().length);
            expect(Optional.of(0), record.leaderEpoch());
            expect("\0", new String(record.headers().toArray()[0].value(), 0, 1, StandardCharsets.ISO_8859_1));
        }
    }

    static void automaticTopics() throws Exception {
        fill(name("automatic"), 1, 1);
    }

    static void seeking() throws Exception {
        String topic = topic("seek", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (Producer<String, String> producer = producer()) {
            for (int i = 0; i < 10; i++)
                producer.send(new ProducerRecord<>(topic, 0, 1_700_000_000_000L + 1000 * i, "k", "value " + i)).get();
        }
        try (Consumer<String, String> consumer = consumer(name("g"))) {
            consumer.assign(List.of(partition));
            expect(Map.of(partition, 0L), consumer.beginningOffsets(List.of(partition)));
            expect(Map.of(partition, 10L), consumer.endOffsets(List.of(partition)));
            expect(4L, consumer.offsetsForTimes(Map.of(partition, 1_700_000_003_500L)).get(partition).offset());
            expect(null, consumer.offsetsForTimes(Map.of(partition, 1_800_000_000_000L)).get(partition));
            consumer.seek(partition, 6);
            expect(numbered(6, 10), values(poll(consumer, 4)));
            consumer.seekToBeginning(List.of(partition));
            expect(numbered(0, 10), values(poll(consumer, 10)));
            expect(OptionalLong.of(0), consumer.currentLag(partition));
        }
        for (var entry : Map.of(OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 10L, OffsetSpec.maxTimestamp(), 9L).entrySet())
            expect(entry.getValue(), admin.listOffsets(Map.of(partition, entry.getKey())).partitionResult(partition).get().offset());
    }

    static void resume() throws Exception {
        String topic = topic("resume", 1), group = name("resuming");
        TopicPartition partition = new TopicPartition(topic, 0);
        fill(topic, 10, 1);
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 10);
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(4, Optional.of(0), "note")));
            expect(new OffsetAndMetadata(4, Optional.of(0), "note"), consumer.committed(Set.of(partition)).get(partition));
        }
        try (Consumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            expect(numbered(4, 10), values(poll(consumer, 6)));
        }
    }

    /** Polls in turns until every member holds as many partitions as wanted; returns what came meanwhile. */
    static List<String> settle(List<Consumer<String, String>> members, int each) {
        List<String> found = new ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!members.stream().allMatch(member -> member.assignment().size() == each)) {
            if (System.nanoTime() > deadline)
                throw new AssertionError(members.stream().map(Consumer::assignment).toList().toString());
            for (Consumer<String, String> member : members)
                member.poll(Duration.ofMillis(50)).forEach(record -> found.add(record.value()));
        }
        return found;
    }

    static void group(Class<?> assignor) throws Exception {
        String topic = topic("shared " + assignor.getSimpleName(), 6), group = name("g " + assignor.getSimpleName());
        String strategy = assignor.getName();
        try (Consumer<String, String> one = consumer(group, "partition.assignment.strategy", strategy)) {
            one.subscribe(List.of(topic));
            try (Consumer<String, String> two = consumer(group, "partition.assignment.strategy", strategy)) {
                two.subscribe(List.of(topic));
                settle(List.of(one, two), 3);
                Set<TopicPartition> all = new HashSet<>(one.assignment());
                all.addAll(two.assignment());
                expect(6, all.size());
                fill(topic, 600, 6);
                List<String> seen = new ArrayList<>(values(poll(one, 300)));
                seen.addAll(values(poll(two, 300)));
                expect(new HashSet<>(numbered(0, 600)), new HashSet<>(seen));
                expect(600, seen.size());
                one.commitSync();
                two.commitSync();
            }
            settle(List.of(one), 6);
            fill(topic, 6, 6);
            expect(6, poll(one, 6).size());
        }
    }

    static void staticMembership() throws Exception {
        String topic = topic("static", 4), group = name("static");
        try (Consumer<String, String> one = consumer(group, "group.instance.id", "a")) {
            one.subscribe(List.of(topic));
            Set<TopicPartition> held;
            try (Consumer<String, String> two = consumer(group, "group.instance.id", "b")) {
                two.subscribe(List.of(topic));
                settle(List.of(one, two), 2);
                held = two.assignment();
            }
            try (Consumer<String, String> back = consumer(group, "group.instance.id", "b")) {
                back.subscribe(List.of(topic));
                settle(List.of(one, back), 2);
                expect(held, back.assignment());
            }
        }
        admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(
            List.of(new MemberToRemove("b")))).all().get();
    }

    static void topics() throws Exception {
        String topic = topic("topics", 2);
        expectError(TopicExistsException.class, () -> topic("topics", 2));
        expectError(InvalidTopicException.class, () -> admin.createTopics(List.of(new NewTopic("a b", 1, (short) 1))).all().get());
        expectError(InvalidReplicationFactorException.class,
            () -> admin.createTopics(List.of(new NewTopic(name("x"), 1, (short) 3))).all().get());
        expect(true, admin.listTopics().names().get().contains(topic));
        TopicDescription described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        expect(2, described.partitions().size());
        expect(1, described.partitions().get(0).isr().size());
        var byId = org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(described.topicId()));
        expect(topic, admin.describeTopics(byId).allTopicIds().get().get(described.topicId()).name());
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
        expect(3, admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
        admin.deleteTopics(List.of(topic)).all().get();
        expectError(UnknownTopicOrPartitionException.class, () -> admin.describeTopics(List.of(topic)).allTopicNames().get());
        expect(false, topic("topics", 1).isEmpty());
    }

    static void configs() throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic("configs", 1));
        var change = List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "123456"), AlterConfigOp.OpType.SET));
        admin.incrementalAlterConfigs(Map.of(resource, change)).all().get();
        for (int i = 0; i < 50 && !entry(resource, "retention.ms").value().equals("123456"); i++) Thread.sleep(50);
        ConfigEntry found = entry(resource, "retention.ms");
        expect("123456", found.value());
        expect(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, found.source());
        expect(ConfigEntry.ConfigType.LONG, found.type());
        expect("delete", entry(resource, "cleanup.policy").value());
        var bad = List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "never"), AlterConfigOp.OpType.SET));
        expectError(InvalidConfigurationException.class, () -> admin.incrementalAlterConfigs(Map.of(resource, bad)).all().get());
        String id = admin.describeCluster().nodes().get().iterator().next().idString();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, id);
        expect(true, admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().size() > 100);
    }

    static ConfigEntry entry(ConfigResource resource, String key) throws Exception {
        return admin.describeConfigs(List.of(resource)).all().get().get(resource).get(key);
    }

    static void groups() throws Exception {
        String topic = topic("groups", 1), group = name("described");
        TopicPartition partition = new TopicPartition(topic, 0);
        fill(topic, 10, 1);
        try (Consumer<String, String> consumer = consumer(group, "client.id", "the client")) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 10);
            consumer.commitSync();
            ConsumerGroupDescription described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            expect("Stable", described.groupState().toString());
            expect("range", described.partitionAssignor());
            MemberDescription member = described.members().iterator().next();
            expect("the client", member.clientId());
            expect(Set.of(partition), member.assignment().topicPartitions());
            expectError(GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        }
        expect(true, admin.listGroups().all().get().stream().anyMatch(listing -> listing.groupId().equals(group)));
        expect(10L, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset());
        admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(3))).all().get();
        expect(3L, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset());
        admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
        expect(Map.of(), admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get());
        admin.deleteConsumerGroups(List.of(group)).all().get();
        expectError(GroupIdNotFoundException.class, () -> admin.describeConsumerGroups(List.of(group)).all().get());
    }

    static void deleteRecords() throws Exception {
        String topic = topic("trimmed", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        fill(topic, 10, 1);
        expect(6L, admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(6))).lowWatermarks().get(partition).get().lowWatermark());
        try (Consumer<String, String> consumer = consumer(name("g"))) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 0);
            expect(numbered(6, 10), values(poll(consumer, 4)));
        }
    }

    static void cluster() throws Exception {
        DescribeClusterResult cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        expect(1, cluster.nodes().get().size());
        expect(false, cluster.clusterId().get().isEmpty());
        int id = cluster.nodes().get().iterator().next().id();
        expect(1, admin.describeLogDirs(List.of(id)).allDescriptions().get().size());
        expect(id, admin.describeMetadataQuorum().quorumInfo().get().leaderId());
        expect(false, admin.describeFeatures().featureMetadata().get().supportedFeatures().isEmpty());
        expect(Map.of(), admin.listPartitionReassignments().reassignments().get());
        expectError(SecurityDisabledException.class,
            () -> admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values().get());
    }

    static void refused() throws Exception {
        String topic = name("small");
        admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(Map.of("max.message.bytes", "1000", "cleanup.policy", "compact")))).all().get();
        try (Producer<String, String> producer = producer()) {
            expectError(RecordTooLargeException.class, () -> producer.send(new ProducerRecord<>(topic, "k", "x".repeat(2000))).get());
            expectError(InvalidRecordException.class, () -> producer.send(new ProducerRecord<>(topic, null, "v")).get());
            expectError(InvalidTimestampException.class, () -> producer.send(
                new ProducerRecord<>(topic, 0, System.currentTimeMillis() + 86_400_000L, "k", "v")).get());
            producer.send(new ProducerRecord<>(topic, "k", "v")).get();
        }
    }
}

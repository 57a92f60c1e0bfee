// Prints records of share groups in __consumer_offsets as Kafka's own code makes them, one JSON object a line:
//   java -cp 'LIB/*' tests/golden/share_group_state/GroupRecord.java > tests/golden/share_group_state/groups-4.3.1.jsonl
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.common.runtime.CoordinatorRecord;
import org.apache.kafka.coordinator.group.GroupCoordinatorRecordHelpers;
import org.apache.kafka.coordinator.group.GroupCoordinatorRecordSerde;
import org.apache.kafka.coordinator.group.modern.MemberState;
import org.apache.kafka.coordinator.group.modern.share.ShareGroup;
import org.apache.kafka.coordinator.group.modern.share.ShareGroupMember;

public class GroupRecord {
    static final Uuid TOPIC = Uuid.fromString("MkU3OEVBNTcwNTJENDM2Qg");

    static void print(String name, CoordinatorRecord record) {
        GroupCoordinatorRecordSerde serde = new GroupCoordinatorRecordSerde();
        HexFormat hex = HexFormat.of();
        byte[] value = serde.serializeValue(record);
        System.out.printf("{\"name\": \"%s\", \"key\": \"%s\", \"value\": %s}%n", name,
            hex.formatHex(serde.serializeKey(record)), value == null ? "null" : '"' + hex.formatHex(value) + '"');
    }

    public static void main(String[] arguments) {
        ShareGroupMember member = new ShareGroupMember.Builder("m").setRackId("r").setClientId("c").setClientHost("/h")
            .setSubscribedTopicNames(List.of("b", "a")).setMemberEpoch(3).setPreviousMemberEpoch(2).setState(MemberState.STABLE)
            .setAssignedPartitions(Map.of(TOPIC, Set.of(1))).build();
        print("member", GroupCoordinatorRecordHelpers.newShareGroupMemberSubscriptionRecord("g", member));
        print("epoch", GroupCoordinatorRecordHelpers.newShareGroupEpochRecord("g", 4, -5L));
        print("target_epoch", GroupCoordinatorRecordHelpers.newShareGroupTargetAssignmentMetadataRecord("g", 4, 1700000000000L));
        print("target", GroupCoordinatorRecordHelpers.newShareGroupTargetAssignmentRecord("g", "m", Map.of(TOPIC, Set.of(1))));
        print("assignment", GroupCoordinatorRecordHelpers.newShareGroupCurrentAssignmentRecord("g", member));
        print("states", GroupCoordinatorRecordHelpers.newShareGroupStatePartitionMetadataRecord("g",
            Map.of(TOPIC, new ShareGroup.InitMapValue("a", Set.of(1), 7L)),
            Map.of(TOPIC, new ShareGroup.InitMapValue("a", Set.of(0), 7L)), Map.of(TOPIC, "b")));
        print("gone", GroupCoordinatorRecordHelpers.newShareGroupEpochTombstoneRecord("g"));
    }
}

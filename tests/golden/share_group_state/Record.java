// Prints records of __share_group_state as Kafka's own code makes them, one JSON object a line:
//   java -cp 'LIB/*' tests/golden/share_group_state/Record.java > tests/golden/share_group_state/kafka-4.3.1.jsonl
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.common.runtime.CoordinatorRecord;
import org.apache.kafka.coordinator.share.*;
import org.apache.kafka.server.share.persister.PersisterStateBatch;

public class Record {
    static final Uuid TOPIC = Uuid.fromString("MkU3OEVBNTcwNTJENDM2Qg");

    static void print(String name, CoordinatorRecord record) {
        ShareCoordinatorRecordSerde serde = new ShareCoordinatorRecordSerde();
        HexFormat hex = HexFormat.of();
        byte[] value = serde.serializeValue(record);
        System.out.printf("{\"name\": \"%s\", \"key\": \"%s\", \"value\": %s}%n", name,
            hex.formatHex(serde.serializeKey(record)), value == null ? "null" : '"' + hex.formatHex(value) + '"');
    }

    static ShareGroupOffset state(long start, int complete, List<PersisterStateBatch> batches) {
        return new ShareGroupOffset.Builder().setSnapshotEpoch(3).setStateEpoch(4).setLeaderEpoch(5).setStartOffset(start)
            .setDeliveryCompleteCount(complete).setStateBatches(batches).setCreateTimestamp(1700000000000L)
            .setWriteTimestamp(1700000000001L).build();
    }

    public static void main(String[] arguments) {
        List<PersisterStateBatch> batches = List.of(
            new PersisterStateBatch(10, 19, (byte) 0, (short) 1), new PersisterStateBatch(20, 20, (byte) 2, (short) 2));
        print("snapshot", ShareCoordinatorRecordHelpers.newShareSnapshotRecord("gå", TOPIC, 7, state(10, 1, batches)));
        print("snapshot_unknown", ShareCoordinatorRecordHelpers.newShareSnapshotRecord("g", TOPIC, 0, state(-1, -1, List.of())));
        print("update", ShareCoordinatorRecordHelpers.newShareUpdateRecord("gå", TOPIC, 7, state(-1, 0, batches)));
        print("update_unknown", ShareCoordinatorRecordHelpers.newShareUpdateRecord("g", TOPIC, 0, state(12, -1, List.of())));
        print("tombstone", ShareCoordinatorRecordHelpers.newShareStateTombstoneRecord("g", TOPIC, 0));
    }
}

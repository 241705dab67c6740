package dev.weir.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.HexFormat;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;

/** One contact webhook to one Profile, by hand: the same fields, checks, ids, leftovers and bytes as bench/contacts.ts asks of Weir. */
final class Normalize implements FixedKeyProcessor<byte[], byte[], byte[]> {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Pattern EMAIL = Pattern.compile("^[^\\s@\"<>(),:;\\[\\]\\\\]{1,64}@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+$");
  private static final Pattern COUNTRY = Pattern.compile("^[A-Z]{2}$");
  private static final Pattern CURRENCY = Pattern.compile("^[A-Z]{3}$");
  private static final Set<String> TOP = Set.of("timestamp", "data");
  private static final Set<String> DATA = Set.of("user_id", "email", "phone", "first_name", "last_name", "title", "website", "company", "locale", "timezone", "address", "plan", "stage", "currency", "balance", "created_at", "updated_at");
  private static final Set<String> ADDRESS = Set.of("street", "city", "region", "postal_code", "country");
  private static final int MAX_EXTRAS = 65_536;

  private final GenericDatumWriter<GenericRecord> writer;
  private final Schema schema;
  private final byte[] frame;
  private final byte[] release;
  private final MessageDigest sha256;
  private final ByteArrayOutputStream out = new ByteArrayOutputStream(2048);
  private final int[] at;
  private BinaryEncoder encoder;
  private FixedKeyProcessorContext<byte[], byte[]> context;

  private static final String[] FIELDS = {"id", "source", "objectKey", "occurredAt", "userId", "email", "phone", "firstName", "lastName", "title", "website", "company", "locale", "timezone", "street", "city", "region", "postalCode", "country", "plan", "lifecycleStage", "currency", "balance", "createdAt", "updatedAt", "extras", "externalIds", "attributes"};
  private static final byte[] MAPPING = "contacts".getBytes(StandardCharsets.UTF_8);
  private static final byte[] OUTPUT_NAME = "profile".getBytes(StandardCharsets.UTF_8);

  Normalize(Schema schema, int schemaId, String release) {
    this.schema = schema;
    writer = new GenericDatumWriter<>(schema);
    frame = ByteBuffer.allocate(5).put((byte) 0).putInt(schemaId).array();
    this.release = release.getBytes(StandardCharsets.UTF_8);
    at = new int[FIELDS.length];
    for (int i = 0; i < FIELDS.length; i++) at[i] = schema.getField(FIELDS[i]).pos();
    try {
      sha256 = MessageDigest.getInstance("SHA-256");
    } catch (java.security.NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public void init(FixedKeyProcessorContext<byte[], byte[]> context) {
    this.context = context;
  }

  @Override
  public void process(FixedKeyRecord<byte[], byte[]> record) {
    try {
      Headers headers = record.headers();
      String event = new String(headers.lastHeader("weir-event").value(), StandardCharsets.ISO_8859_1);
      String outputId = outputId(event);
      byte[] value = map(JSON.readTree(record.value()), outputId);
      headers.add("weir-release", release);
      headers.add("weir-mapping", MAPPING);
      headers.add("weir-output", outputId.getBytes(StandardCharsets.ISO_8859_1));
      headers.add("weir-output-name", OUTPUT_NAME);
      context.forward(record.withValue(value));
    } catch (java.io.IOException e) {
      throw new java.io.UncheckedIOException(e);
    }
  }

  private String outputId(String event) {
    byte[] digest = sha256.digest(("output\0" + event + "\0profile\0").getBytes(StandardCharsets.UTF_8));
    return "out_" + HexFormat.of().formatHex(digest, 0, 16);
  }

  private byte[] map(JsonNode item, String id) throws java.io.IOException {
    JsonNode data = item.path("data");
    JsonNode address = data.path("address");
    var profile = new GenericData.Record(schema);
    int i = 0;
    profile.put(at[i++], id);
    profile.put(at[i++], "contacts");
    profile.put(at[i++], text(data, "user_id"));
    profile.put(at[i++], time(item, "timestamp"));
    profile.put(at[i++], text(data, "user_id"));
    profile.put(at[i++], email(data));
    profile.put(at[i++], trimmed(data, "phone"));
    profile.put(at[i++], trimmed(data, "first_name"));
    profile.put(at[i++], trimmed(data, "last_name"));
    profile.put(at[i++], trimmed(data, "title"));
    profile.put(at[i++], text(data, "website"));
    profile.put(at[i++], trimmed(data, "company"));
    profile.put(at[i++], text(data, "locale"));
    profile.put(at[i++], text(data, "timezone"));
    profile.put(at[i++], trimmed(address, "street"));
    profile.put(at[i++], trimmed(address, "city"));
    profile.put(at[i++], trimmed(address, "region"));
    profile.put(at[i++], text(address, "postal_code"));
    profile.put(at[i++], code(address, "country", COUNTRY));
    profile.put(at[i++], lower(data, "plan"));
    profile.put(at[i++], lower(data, "stage"));
    profile.put(at[i++], code(data, "currency", CURRENCY));
    profile.put(at[i++], data.path("balance").longValue());
    profile.put(at[i++], time(data, "created_at"));
    profile.put(at[i++], time(data, "updated_at"));
    profile.put(at[i++], extras(item));
    profile.put(at[i++], java.util.List.of());
    profile.put(at[i], java.util.Map.of());
    check(profile);
    out.reset();
    out.writeBytes(frame);
    encoder = EncoderFactory.get().directBinaryEncoder(out, encoder);
    writer.write(profile, encoder);
    return out.toByteArray();
  }

  /** The contract: the same rules as bench/contacts.ts. */
  private void check(GenericRecord profile) {
    if (profile.get(at[4]) == null || profile.get(at[5]) == null || profile.get(at[18]) == null) throw new IllegalArgumentException("a required field is missing");
    if (tooLong(profile.get(at[7])) || tooLong(profile.get(at[8]))) throw new IllegalArgumentException("a name is too long");
    if ((Long) profile.get(at[22]) < 0) throw new IllegalArgumentException("balance is negative");
  }

  private static boolean tooLong(Object value) {
    return value != null && ((String) value).codePointCount(0, ((String) value).length()) > 100;
  }

  private static String text(JsonNode node, String name) {
    JsonNode value = node.get(name);
    return value == null || value.isNull() ? null : value.asText();
  }

  private static String trimmed(JsonNode node, String name) {
    String value = text(node, name);
    if (value == null) return null;
    value = value.strip();
    return value.isEmpty() ? null : value;
  }

  private static String lower(JsonNode node, String name) {
    String value = text(node, name);
    return value == null ? null : value.toLowerCase(Locale.ROOT);
  }

  private static String email(JsonNode data) {
    String value = text(data, "email");
    if (value == null) return null;
    value = value.strip().toLowerCase(Locale.ROOT);
    if (value.length() > 254 || !EMAIL.matcher(value).find()) throw new IllegalArgumentException("expected an e-mail address");
    return value;
  }

  private static String code(JsonNode node, String name, Pattern pattern) {
    String value = text(node, name);
    if (value == null) return null;
    value = value.strip().toUpperCase(Locale.ROOT);
    if (!pattern.matcher(value).find()) throw new IllegalArgumentException("expected a code");
    return value;
  }

  private static Long time(JsonNode node, String name) {
    String value = text(node, name);
    return value == null ? null : Instant.parse(value.strip()).toEpochMilli();
  }

  /** What no field used, as JSON. */
  private static String extras(JsonNode item) throws java.io.IOException {
    ObjectNode rest = rest(item, TOP, "data", DATA, "address", ADDRESS);
    if (rest.isEmpty()) return null;
    String text = JSON.writeValueAsString(rest);
    return text.length() > MAX_EXTRAS ? null : text;
  }

  /** The fields that are not used; those of `inner` in their place, without what is used of them. */
  private static ObjectNode rest(JsonNode node, Set<String> used, String inner, Set<String> usedOfInner, String innermost, Set<String> usedOfInnermost) {
    ObjectNode rest = JSON.createObjectNode();
    for (var field : node.properties()) {
      String name = field.getKey();
      if (name.equals(inner) && field.getValue().isObject()) {
        ObjectNode below = rest(field.getValue(), usedOfInner, innermost, usedOfInnermost, null, null);
        if (!below.isEmpty()) rest.set(name, below);
      } else if (!used.contains(name)) rest.set(name, field.getValue());
    }
    return rest;
  }
}

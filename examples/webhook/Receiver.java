// Take webhooks in Java 17 or later: LISTEN=127.0.0.1:3000 WEBHOOK_SECRET=whsec_… java Receiver.java

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final byte[] KEY = Base64.getDecoder().decode(System.getenv("WEBHOOK_SECRET").replaceFirst("^whsec_", ""));

    static boolean verified(Headers headers, byte[] body) throws Exception {
        String id = headers.getFirst("webhook-id"), timestamp = headers.getFirst("webhook-timestamp"), given = headers.getFirst("webhook-signature");
        if (id == null || given == null || timestamp == null || !timestamp.matches("[0-9]{1,12}")
            || Math.abs(Instant.now().getEpochSecond() - Long.parseLong(timestamp)) > 300) {
            return false;
        }
        var mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(KEY, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
        boolean good = false;
        for (String part : given.split(" ")) {
            good |= MessageDigest.isEqual(expected, part.getBytes(StandardCharsets.UTF_8));
        }
        return good;
    }

    public static void main(String[] args) throws Exception {
        String[] at = System.getenv("LISTEN").split(":");
        var server = HttpServer.create(new InetSocketAddress(at[0], Integer.parseInt(at[1])), 0);
        server.createContext("/hooks", exchange -> {
            byte[] body = exchange.getRequestBody().readNBytes(64 << 10);
            boolean good = false;
            try {
                good = verified(exchange.getRequestHeaders(), body);
            } catch (Exception e) {
                System.err.println(e);
            }
            exchange.sendResponseHeaders(good ? 204 : 401, -1);
            exchange.close();
            if (good) {
                System.out.println(new String(body, StandardCharsets.UTF_8)); // your library reads it, unless its id was seen before
            }
        });
        server.start();
    }
}

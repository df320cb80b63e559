package dev.sessionoperator.tomcat;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;

import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

/** A store, by a pool of connections to each of its servers. */
final class Client {
    /** Connections that are kept for each server; busier moments open more. */
    private static final int KEPT = 32;

    /** How often a cluster may send a command on to another server. */
    private static final int REDIRECTS = 5;

    /** Slots of a cluster (Redis Cluster specification). */
    private static final int SLOTS = 16384;

    private final Settings settings;
    private final SSLSocketFactory tls;
    private final Map<String, Deque<Connection>> idle = new ConcurrentHashMap<>();
    private final Map<Integer, String> servers = new ConcurrentHashMap<>();

    Client(Settings settings) {
        this.settings = settings;
        this.tls = settings.tls() ? tls(settings.authority()) : null;
    }

    /** Sends commands that are all about one key. */
    Object[] ask(String key, Object[]... commands) throws IOException {
        byte[][][] encoded = new byte[commands.length][][];
        for (int i = 0; i < commands.length; i++) {
            encoded[i] = encoded(commands[i]);
        }
        if (!settings.cluster()) {
            return onServer(settings.address(), encoded);
        }
        int slot = slot(key.getBytes(StandardCharsets.UTF_8));
        for (int i = 0; ; i++) {
            String server = servers.getOrDefault(slot, settings.address());
            try {
                return onServer(server, encoded);
            } catch (Connection.Refused e) {
                String[] words = e.getMessage().split(" ");
                if (i >= REDIRECTS || words.length != 3 || !words[0].equals("MOVED")) {
                    throw e;
                }
                // An empty host stands for the one that answered.
                String host = words[2].startsWith(":") ? server.substring(0, server.lastIndexOf(':')) : "";
                servers.put(slot, host + words[2]);
            } catch (IOException e) {
                if (servers.remove(slot) == null) {
                    throw e;
                }
            }
        }
    }

    /** A connection that has been idle may be dead, of which a client learns only by using it. */
    private Object[] onServer(String server, byte[][]... commands) throws IOException {
        Connection kept = pool(server).pollFirst();
        if (kept != null) {
            try {
                return on(server, kept, commands);
            } catch (Connection.Refused e) {
                throw e;
            } catch (IOException e) {
                closeAll(server);
            }
        }
        return on(server, connect(server), commands);
    }

    private Object[] on(String server, Connection connection, byte[][]... commands) throws IOException {
        boolean usable = false;
        try {
            Object[] answers = connection.ask(commands);
            usable = true;
            return answers;
        } catch (Connection.Refused e) {
            usable = true;
            throw e;
        } finally {
            Deque<Connection> pool = pool(server);
            if (usable && pool.size() < KEPT) {
                pool.addFirst(connection);
            } else {
                connection.close();
            }
        }
    }

    private Connection connect(String server) throws IOException {
        int colon = server.lastIndexOf(':');
        String host = server.substring(0, colon).replaceAll("^\\[|\\]$", "");
        Connection connection = new Connection(host, Integer.parseInt(server.substring(colon + 1)), tls);
        try {
            if (settings.password() != null) {
                String user = settings.username();
                connection.ask(user == null ? encoded("AUTH", settings.password()) : encoded("AUTH", user, settings.password()));
            }
        } catch (IOException e) {
            connection.close();
            throw new IOException("the session store refuses the user " + settings.username() + ": " + e.getMessage(), e);
        }
        return connection;
    }

    private Deque<Connection> pool(String server) {
        return idle.computeIfAbsent(server, name -> new ConcurrentLinkedDeque<>());
    }

    private void closeAll(String server) throws IOException {
        Deque<Connection> pool = pool(server);
        for (Connection connection = pool.pollFirst(); connection != null; connection = pool.pollFirst()) {
            connection.close();
        }
    }

    /** Closes what is idle. */
    void close() throws IOException {
        for (String server : idle.keySet()) {
            closeAll(server);
        }
    }

    private static byte[][] encoded(Object... arguments) {
        List<byte[]> encoded = new ArrayList<>();
        for (Object argument : arguments) {
            encoded.add(argument instanceof byte[] ? (byte[]) argument : argument.toString().getBytes(StandardCharsets.UTF_8));
        }
        return encoded.toArray(new byte[0][]);
    }

    /** CRC16 (XMODEM) of the key; ours have no hash tags, as a prefix has no braces. */
    static int slot(byte[] key) {
        int crc = 0;
        for (byte b : key) {
            crc ^= (b & 0xff) << 8;
            for (int bit = 0; bit < 8; bit++) {
                crc = (crc & 0x8000) == 0 ? crc << 1 : crc << 1 ^ 0x1021;
            }
            crc &= 0xffff;
        }
        return crc % SLOTS;
    }

    private static SSLSocketFactory tls(Path authority) {
        if (authority == null) {
            return (SSLSocketFactory) SSLSocketFactory.getDefault();
        }
        try (InputStream pem = Files.newInputStream(authority)) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            int number = 0;
            for (Certificate certificate : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                store.setCertificateEntry("authority" + number++, certificate);
            }
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(store);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            return context.getSocketFactory();
        } catch (IOException | GeneralSecurityException e) {
            throw new IllegalStateException("cannot use the authorities in " + authority, e);
        }
    }
}

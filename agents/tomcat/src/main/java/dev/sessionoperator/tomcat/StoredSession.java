package dev.sessionoperator.tomcat;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.util.Arrays;
import java.util.TreeMap;

import org.apache.catalina.session.StandardSession;
import org.apache.catalina.util.CustomObjectInputStream;

/** A session of one request: read when the request begins, written when it ends. */
final class StoredSession extends StandardSession {
    private static final long serialVersionUID = 1L;

    /** What the application sees of it, when it was read; null for a session that was never stored. */
    private transient byte[] before;

    StoredSession(SessionManager manager) {
        super(manager);
    }

    /** The form in which it is stored: Tomcat's own, as in its files. */
    byte[] stored() throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            writeObjectData(out);
        }
        return bytes.toByteArray();
    }

    /** Reads what {@link #stored} gave; {@code lifeMillis} is what the store says that it has still to live. */
    void read(byte[] stored, ClassLoader loader, long lifeMillis) throws IOException, ClassNotFoundException {
        InputStream bytes = new ByteArrayInputStream(stored);
        try (ObjectInputStream in = new CustomObjectInputStream(bytes, loader)) {
            readObjectData(in);
        }
        long now = System.currentTimeMillis();
        if (maxInactiveInterval > 0 && lifeMillis > 0) {
            // A request that changes nothing only prolongs the life of what is stored.
            lastAccessedTime = now - (maxInactiveInterval * 1000L - lifeMillis);
        }
        // The store drops what has been idle for too long, so what it gave is valid.
        thisAccessedTime = now;
        before = content();
    }

    /** Whether it was ever stored. */
    boolean isStored() {
        return before != null;
    }

    /** Whether the application has changed something, be it by setting it or inside of an object. */
    boolean isChanged() throws IOException {
        return !Arrays.equals(before, content());
    }

    /** Called when it has been written under its present id. */
    void written() throws IOException {
        before = content();
    }

    /** A new id is a new entry in the store. */
    @Override
    public void setId(String id, boolean notify) {
        super.setId(id, notify);
        before = null;
    }

    private byte[] content() throws IOException {
        TreeMap<String, Object> content = new TreeMap<>();
        attributes.forEach((name, value) -> {
            if (value instanceof Serializable) {
                content.put(name, value);
            }
        });
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeObject(content);
            out.writeInt(maxInactiveInterval);
            out.writeBoolean(isNew);
            out.writeObject(authType);
            out.writeObject(principal == null ? null : principal.getName());
        }
        return bytes.toByteArray();
    }
}

package dev.sessionoperator.tomcat;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.Closeable;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;

import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/** One connection to a server that speaks RESP2. Not for two threads at once. */
final class Connection implements Closeable {
    /** Milliseconds until a connection is given up, and until an answer is. */
    private static final int TIMEOUT = 5000;

    /** Longest answer that is read, in bytes; a session is far shorter. */
    private static final int ANSWER_LIMIT = 64 << 20;

    private final Socket socket;
    private final InputStream in;
    private final OutputStream out;

    /** An answer {@code -…}: the server is there and refuses. */
    static final class Refused extends IOException {
        private static final long serialVersionUID = 1L;

        Refused(String message) {
            super(message);
        }
    }

    Connection(String host, int port, SSLSocketFactory tls) throws IOException {
        Socket plain = new Socket();
        try {
            plain.connect(new InetSocketAddress(host, port), TIMEOUT);
            plain.setSoTimeout(TIMEOUT);
            plain.setTcpNoDelay(true);
            plain.setKeepAlive(true);
            socket = tls == null ? plain : secured(plain, host, port, tls);
            in = new BufferedInputStream(socket.getInputStream());
            out = new BufferedOutputStream(socket.getOutputStream());
        } catch (IOException e) {
            plain.close();
            throw new IOException("no connection to the session store at " + host + ":" + port + ": " + e.getMessage(), e);
        }
    }

    private static Socket secured(Socket plain, String host, int port, SSLSocketFactory tls) throws IOException {
        SSLSocket socket = (SSLSocket) tls.createSocket(plain, host, port, true);
        SSLParameters parameters = socket.getSSLParameters();
        // Without it any certificate of a trusted authority would do.
        parameters.setEndpointIdentificationAlgorithm("HTTPS");
        socket.setSSLParameters(parameters);
        socket.startHandshake();
        return socket;
    }

    /** Sends commands at once and gives the answers: byte[], Long, or null. */
    Object[] ask(byte[][]... commands) throws IOException {
        for (byte[][] command : commands) {
            send(command);
        }
        out.flush();
        Object[] answers = new Object[commands.length];
        Refused refused = null;
        for (int i = 0; i < answers.length; i++) {
            try {
                answers[i] = answer();
            } catch (Refused e) {
                // The answers that follow have to be read for the connection to stay usable.
                refused = refused == null ? e : refused;
            }
        }
        if (refused != null) {
            throw refused;
        }
        return answers;
    }

    private void send(byte[][] command) throws IOException {
        line('*', command.length);
        for (byte[] argument : command) {
            line('$', argument.length);
            out.write(argument);
            out.write('\r');
            out.write('\n');
        }
    }

    private void line(char kind, int number) throws IOException {
        out.write((kind + Integer.toString(number) + "\r\n").getBytes(StandardCharsets.US_ASCII));
    }

    private Object answer() throws IOException {
        String line = line();
        String rest = line.substring(1);
        switch (line.charAt(0)) {
            case '+':
                return rest.getBytes(StandardCharsets.UTF_8);
            case '-':
                throw new Refused(rest);
            case ':':
                return Long.valueOf(rest);
            case '$':
                return bulk(Integer.parseInt(rest));
            default:
                throw new IOException("not an answer of a session store: " + line);
        }
    }

    private byte[] bulk(int length) throws IOException {
        if (length < 0) {
            return null;
        }
        if (length > ANSWER_LIMIT) {
            throw new IOException("a session of " + length + " bytes is too large");
        }
        byte[] bytes = in.readNBytes(length);
        if (bytes.length < length || in.read() != '\r' || in.read() != '\n') {
            throw new EOFException("the session store broke off in the middle of an answer");
        }
        return bytes;
    }

    private String line() throws IOException {
        StringBuilder line = new StringBuilder();
        for (int c = in.read(); c != '\r'; c = in.read()) {
            if (c < 0 || line.length() > 4096) {
                throw new EOFException("the session store closed the connection");
            }
            line.append((char) c);
        }
        if (in.read() != '\n' || line.length() == 0) {
            throw new IOException("not an answer of a session store: " + line);
        }
        return line.toString();
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}

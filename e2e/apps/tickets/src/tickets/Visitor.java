package tickets;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;

/** Who is logged in, and the tickets that were put aside; kept in the session as one object. */
final class Visitor implements Serializable {
    private static final long serialVersionUID = 1L;

    /** Longest name on a ticket, in characters. */
    static final int HOLDER_LIMIT = 40;

    private final String name;
    private final ArrayList<Ticket> tickets = new ArrayList<>();

    Visitor(String name) {
        this.name = name;
    }

    /** A ticket and whose name is on it. */
    record Ticket(String play, String holder) implements Serializable {
    }

    String name() {
        return name;
    }

    List<Ticket> tickets() {
        return tickets;
    }

    /** Puts a ticket aside. */
    boolean add(String play, String holder) {
        if (!Office.PLAYS.containsKey(play) || holder.isBlank() || holder.length() > HOLDER_LIMIT) {
            return false;
        }
        return tickets.add(new Ticket(play, holder.strip()));
    }
}

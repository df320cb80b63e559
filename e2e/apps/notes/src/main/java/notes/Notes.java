package notes;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** A notebook for each visitor. Spring Session is the only place where it keeps anything. */
@SpringBootApplication
public class Notes {
    public static void main(String[] arguments) {
        SpringApplication.run(Notes.class, arguments);
    }
}

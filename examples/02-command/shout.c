/* A jumpscript in C: a command that shouts back what it is told.
 *
 * Payload on stdin, result on stdout, log on stderr, the job in JOB_* variables. The exit code says how it ended:
 * 0 done, 75 try again, anything else failed. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    static char text[4096];
    size_t length = fread(text, 1, sizeof text, stdin);
    const char *attempt = getenv("JOB_ATTEMPT");
    fprintf(stderr, "attempt %s\n", attempt ? attempt : "?");

    if (length == 0) {
        fprintf(stderr, "nothing to shout\n");
        return 1;
    }
    if (length == 4 && memcmp(text, "busy", 4) == 0) {
        fprintf(stderr, "hoarse, ask again later\n");
        return 75;
    }
    do {
        for (size_t n = 0; n < length; n++) {
            text[n] = (char)toupper((unsigned char)text[n]);
        }
        fwrite(text, 1, length, stdout);
    } while ((length = fread(text, 1, sizeof text, stdin)) > 0);
    return 0;
}

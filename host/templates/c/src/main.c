/* Greets whoever is named: payload on stdin, result on stdout, log on stderr, the job in JOB_* variables. The exit code
 * says how it ended: 0 done, 75 try again, anything else failed. */

#include <stdio.h>
#include <stdlib.h>

int main(void) {
    static char name[4096];
    size_t length = fread(name, 1, sizeof name, stdin);
    const char *attempt = getenv("JOB_ATTEMPT");

    if (length == 0) {
        fprintf(stderr, "a greeting needs a name\n");
        return 1;
    }
    fprintf(stderr, "greeting %.*s, attempt %s\n", (int)length, name, attempt ? attempt : "?");
    printf("Hello, %.*s!", (int)length, name);
    return 0;
}

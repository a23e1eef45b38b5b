// Greets whoever is named: payload on standard input, result on standard output, log on standard error, the job in
// JOB_* variables. The exit code says how it ended: 0 done, 75 try again, anything else failed.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type args struct {
	Name string `json:"name"`
}

type greeting struct {
	Greeting string `json:"greeting"`
}

func main() {
	var a args
	if err := json.NewDecoder(os.Stdin).Decode(&a); err != nil {
		fail("the payload does not fit: %v", err)
	}
	if a.Name == "" {
		fail("a greeting needs a name")
	}
	fmt.Fprintf(os.Stderr, "greeting %s, attempt %s of %s\n", a.Name, os.Getenv("JOB_ATTEMPT"), os.Getenv("JOB_MAX_ATTEMPTS"))
	if err := json.NewEncoder(os.Stdout).Encode(greeting{"Hello, " + a.Name + "!"}); err != nil {
		fail("the result cannot be written: %v", err)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

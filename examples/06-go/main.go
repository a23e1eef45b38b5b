// Sorts people of a CSV by their age: a command, payload on standard input, result on standard output.
package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
)

type person struct {
	Name string `json:"name"`
	Age  int    `json:"age"`
}

// errBusy asks for another attempt.
var errBusy = errors.New("busy, ask again later")

func main() {
	people, err := read()
	switch {
	case errors.Is(err, errBusy):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(75)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sort.Slice(people, func(a, b int) bool { return people[a].Age < people[b].Age })
	fmt.Fprintf(os.Stderr, "%d people, attempt %s of job type %s\n", len(people), os.Getenv("JOB_ATTEMPT"), os.Getenv("JOB_TYPE"))
	if err := json.NewEncoder(os.Stdout).Encode(people); err != nil {
		panic(err)
	}
}

func read() ([]person, error) {
	rows, err := csv.NewReader(os.Stdin).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 1 && rows[0][0] == "busy" {
		return nil, errBusy
	}
	var people []person
	for n, row := range rows {
		if len(row) != 2 {
			return nil, fmt.Errorf("row %d has %d fields, expected a name and an age", n+1, len(row))
		}
		age, err := strconv.Atoi(row[1])
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", n+1, err)
		}
		people = append(people, person{row[0], age})
	}
	return people, nil
}

//go:build race

package main_test

// raceFlags build the playground as this test is built: its concurrency is in
// its own process.
var raceFlags = []string{"-race"}

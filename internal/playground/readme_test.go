package main_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The commands in the README's shell blocks work: questions are put to a
// playground, and the others are those that these tests or CI run.
func TestREADMECommands(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t)
	up := p.up()
	others := []string{"make run", "make run ARGS=-stop", "make test"}
	digs := 0
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(readme, -1) {
		for line := range strings.Lines(string(block[1])) {
			line = strings.TrimSpace(line)
			if slices.Contains(others, line) {
				continue
			}
			d := regexp.MustCompile(`^dig @127\.0\.0\.([12]) -p 1053 \+noall \+answer (\S+) (\S+)$`).FindStringSubmatch(line)
			if d == nil {
				t.Errorf("no test runs %q", line)
				continue
			}
			digs++
			if n, err := dig(up.process("ns"+d[1]).Address, d[2], d[3]); err != nil || n == 0 {
				t.Errorf("%s: %d records, %v", line, n, err)
			}
		}
	}
	if digs < 3 {
		t.Errorf("only %d questions were found", digs)
	}
}

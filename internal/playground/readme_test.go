package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The commands in the README's shell blocks work, in this order: they are put to a
// playground at other addresses, but for those that these tests or CI run.
func TestREADMECommands(t *testing.T) {
	t.Parallel()
	readme := string(read(t, "../../README.md"))
	p := start(t, "-members")
	p.up()
	term := &terminal{t: t, p: p, dir: t.TempDir()}
	for name, target := range map[string]string{"bin": bin, "run": p.dir} {
		if err := os.Symlink(target, filepath.Join(term.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	others := []string{"make run", "make run ARGS=-stop", "make test"}
	here := strings.NewReplacer(
		"@127.0.0.", "@"+p.base, "-p 1053 ", "-p 10053 ",
		"https://127.0.0.", "https://"+p.base, ":8153 ", ":18153 ",
	)
	digs, commands := 0, 0
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(readme, -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			switch {
			case slices.Contains(others, line):
				continue
			case strings.HasPrefix(line, "dig "):
				digs++
			case strings.HasPrefix(line, "bin/puppetsrvctl "), strings.HasPrefix(line, "bin/puppetsrv-member "):
				commands++
			case strings.HasPrefix(line, "export "):
			default:
				t.Errorf("no test runs %q", line)
				continue
			}
			term.paste(here.Replace(line))
		}
	}
	if digs < 3 || commands < 4 {
		t.Errorf("only %d questions and %d commands were found", digs, commands)
	}
}

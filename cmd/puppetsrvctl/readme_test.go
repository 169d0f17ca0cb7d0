package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Every command that the README and docs/operations.md show does what it says; only the name of the node
// and the ssldir, which stand on a real host, are replaced.
func TestREADMECommands(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	readme = append(readme, operations...)
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash on this machine: the README's commands are not run")
	}
	s, remote := newSite(t), newSSLDir(t)
	s.installed()
	s.members()
	n := 0
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(readme, -1) {
		for line := range strings.Lines(string(block[1])) {
			n++
			line = strings.TrimSpace(line)
			if strings.Contains(line, "https://") {
				line = strings.NewReplacer("https://ns1.example.net:8153", remote.url, "puppetsrvctl ", "puppetsrvctl --ssldir "+remote.dir+" ").Replace(line)
			}
			if s.shell("bash", "-c", line) == "" && !strings.HasPrefix(line, "source ") {
				t.Errorf("%s says nothing", line)
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d commands were found", n)
	}
}

// README and help tell of the same commands, flags and variables.
func TestREADMEIsComplete(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	help, err := os.ReadFile("testdata/help.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range regexp.MustCompile(`--[a-z-]+|\$PUPPETSRV_[A-Z]+|(?m:^  [a-z]+  )`).FindAllString(string(help), -1) {
		word = strings.Trim(word, " $")
		if word == "--help" || word == "show" || word == "list" {
			continue
		}
		if !strings.Contains(string(readme), word) {
			t.Errorf("the README does not tell of %s", word)
		}
	}
}

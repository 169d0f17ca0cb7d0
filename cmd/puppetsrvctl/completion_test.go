package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// script writes the completion script of a shell, checks its syntax and returns its
// path; without the shell the test is skipped.
func (s *site) script(shell string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "completion."+shell)
	text := s.want(exitDone, []string{"completion", shell}).stdout
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if _, err := exec.LookPath(shell); err != nil {
		s.t.Skipf("no %s on this machine: its script is not tried", shell)
	}
	c := exec.Command(shell, "-n", path)
	c.Env = s.env
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		s.t.Errorf("%s -n: %v: %s", shell, err, out)
	}
	return path
}

// installed adds puppetsrvctl to the PATH of what the site runs.
func (s *site) installed() {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "puppetsrvctl")); err != nil {
		s.t.Fatal(err)
	}
	s.env = append(s.env, "PATH="+dir+":"+os.Getenv("PATH"))
}

// completions are what may come next on a command line, in any shell.
var completions = map[string][]string{
	"puppetsrvctl cl":                                  {"cluster"},
	"puppetsrvctl camaster ":                           {"set", "show"},
	"puppetsrvctl camaster set m3":                     {"m3.example.net"},
	"puppetsrvctl drain --reason status ":              {"m1.example.net", "m2.example.net", "m3.example.net", "m4.example.net"},
	"puppetsrvctl drain --reason=status m1":            {"m1.example.net"},
	"puppetsrvctl -o json history ":                    {"camaster", "m1.example.net", "m2.example.net", "m3.example.net", "m4.example.net"},
	"puppetsrvctl zone ":                               {"datacenter1", "datacenter2"},
	"puppetsrvctl keys use ":                           {"1a2b3c4d", "9f8e7d6c"},
	"puppetsrvctl completion ":                         {"bash", "fish", "zsh"},
	"puppetsrvctl status --che":                        {"--check"},
	"puppetsrvctl camaster set x --wait ":              {"all", "majority", "none"},
	"puppetsrvctl --server unix:///nowhere drain m":    nil,
	"puppetsrvctl --server=unix:///nowhere drain m":    nil,
	"puppetsrvctl camaster set m3 --reason x --expect": {"--expect"},
	"puppetsrvctl failover --to ":                      {"m1.example.net", "m2.example.net", "m3.example.net", "m4.example.net"},
	"puppetsrvctl switchover --reason x --to m3":       {"m3.example.net"},
	"puppetsrvctl rejoin m1":                           {"m1.example.net"},
}

func (s *site) completes(complete func(line string) string) {
	s.t.Helper()
	for line, want := range completions {
		var got []string
		for text := range strings.Lines(complete(line)) {
			word, _, _ := strings.Cut(strings.TrimSpace(text), "\t") // fish adds the description
			got = append(got, word)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			s.t.Errorf("%q is completed by %q, want %q", line, got, want)
		}
	}
}

// shell runs a command, and returns what it prints.
func (s *site) shell(name string, args ...string) string {
	s.t.Helper()
	c := exec.Command(name, args...)
	c.Env = s.env
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil || stderr.Len() > 0 {
		s.t.Errorf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return string(out)
}

func TestCompletionBash(t *testing.T) {
	s := newSite(t)
	s.installed()
	path := s.script("bash")
	s.completes(func(line string) string {
		// As bash does: : and = are words of their own.
		line = strings.NewReplacer(":", " : ", "=", " = ").Replace(line)
		parts := strings.Fields(line)
		if strings.HasSuffix(line, " ") {
			parts = append(parts, "")
		}
		var array strings.Builder
		for _, p := range parts {
			array.WriteString(" '" + p + "'")
		}
		return s.shell("bash", "-c", `source "$1"; COMP_LINE=$2; COMP_WORDS=(`+array.String()+`); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			_puppetsrvctl; [[ ${#COMPREPLY[@]} = 0 ]] || printf '%s\n' "${COMPREPLY[@]}"`, "bash", path, strings.NewReplacer(" : ", ":", " = ", "=").Replace(line))
	})
}

func TestCompletionFish(t *testing.T) {
	s := newSite(t)
	s.installed()
	path := s.script("fish")
	s.completes(func(line string) string {
		return s.shell("fish", "-c", "source $argv[1]; complete -C $argv[2]", path, line)
	})
}

// zsh completes only at a prompt, so what its function would add is caught.
func TestCompletionZsh(t *testing.T) {
	s := newSite(t)
	s.installed()
	path := s.script("zsh")
	s.completes(func(line string) string {
		return s.shell("zsh", "-fc", `
			compdef() { }
			offer() { local w; for w in "$@"; do [[ $w == ${words[CURRENT]}* ]] && print -r -- $w; done; return 0 }
			compadd() { if [[ $1 == -a ]]; then offer ${(P)2}; else shift; offer "$@"; fi }
			_describe() { local -a all; all=(${(P)@[-1]}); offer ${all%%:*} }
			_files() { }
			source $1
			BUFFER=$2; words=(${(z)2}); [[ $2 == *' ' ]] && words+=(''); CURRENT=${#words}
			_puppetsrvctl`, "zsh", path, line)
	})
}

// Names that are not plain words never reach a shell.
func TestCompletionIsHarmless(t *testing.T) {
	got := lines([]string{"m1.example.net", "$(reboot)", "a b", "x;y", "`id`", "ns_1", "é"})
	if got != "m1.example.net\nns_1\n" {
		t.Errorf("%q", got)
	}
}

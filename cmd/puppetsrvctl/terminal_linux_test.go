package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// terminal is the program on a pseudo-terminal of its own, as at a prompt.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	keys   *os.File
	screen *seen
	read   sync.WaitGroup
}

func (s *site) onTerminal(columns uint16, args ...string) *terminal {
	s.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.t.Skipf("no terminals here: %v", err)
	}
	s.t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		s.t.Skipf("no terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		s.t.Skipf("no terminals here: %v", err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.t.Skipf("no terminals here: %v", err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		s.t.Fatal(err)
	}
	c := &terminal{t: s.t, cmd: program(s.t, s.env, args...), keys: master, screen: newSeen()}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	slave.Close()
	c.read.Go(func() { io.Copy(c.screen, master) }) // ends with an error when the program does
	return c
}

func (c *terminal) ends(code int) string {
	c.t.Helper()
	c.cmd.Wait()
	c.read.Wait()
	text := strings.ReplaceAll(c.screen.String(), "\r\n", "\n")
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("%q ends with %d, want %d:\n%s", c.cmd.Args, got, code, text)
	}
	return text
}

func TestColours(t *testing.T) {
	s := newSite(t)
	s.change(func(st *admin.Status) {
		st.Problems = []admin.Problem{{Severity: "error", Subject: "disk", Text: strings.Repeat("word ", 40)}}
	})
	env := s.env
	if text := s.onTerminal(80, "status").ends(exitDone); !strings.Contains(text, "\x1b[31merror\x1b[0m") {
		t.Errorf("no colours:\n%q", text)
	}
	for _, without := range []string{"NO_COLOR=1", "TERM=dumb"} {
		s.env = append(env, without)
		text := s.onTerminal(50, "status").ends(exitDone)
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s: colours:\n%q", without, text)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(line); n > 51 {
				t.Errorf("%d columns on a terminal of 50: %s", n, line)
			}
		}
	}
	s.env = env
	if text := s.onTerminal(80, "status", "-o", "json").ends(exitDone); strings.Contains(text, "\x1b") {
		t.Errorf("colours in JSON:\n%q", text)
	}
}

// What cannot be undone asks a person first; only yes is yes.
func TestQuestions(t *testing.T) {
	s := newSite(t)
	const (
		remove = "keys remove 9f8e7d6c"
		force  = "camaster set m2 --reason x --force"
		lost   = "failover --to m3 --reason x --force" // there is no member
	)
	for _, command := range []string{remove, force, lost} {
		for _, answer := range []string{"n\n", "\n", "maybe\n", "\x04"} {
			c := s.onTerminal(80, words(command)...)
			c.screen.until(t, "[y/N] ")
			c.keys.WriteString(answer)
			if text := c.ends(exitFailed); !strings.Contains(text, "puppetsrvctl: not confirmed; nothing was changed\n") {
				t.Errorf("%s, %q:\n%s", command, answer, text)
			}
		}
		c := s.onTerminal(80, words(command)...)
		c.screen.until(t, "[y/N] ")
		c.keys.WriteString("\x03") // Ctrl-C
		c.ends(130)
	}
	if n := len(s.History("camaster")); n != 1 {
		t.Errorf("%d writes", n)
	}
	c := s.onTerminal(80, words(remove)...)
	c.screen.until(t, "[y/N] ")
	c.keys.WriteString("y\n")
	if text := c.ends(exitDone); !strings.Contains(text, "removed key 9f8e7d6c\n") {
		t.Error(text)
	}
	c = s.onTerminal(80, words(force)...)
	c.screen.until(t, "Make m2.example.net the camaster against the safety rules?")
	c.keys.WriteString("YES\n")
	c.ends(exitDone)
	if w := s.History("camaster")[0]; !w.Forced {
		t.Errorf("written: %+v", w)
	}
	for _, command := range []string{remove + " --yes", lost + " --yes", "camaster set m1 --reason x --force -y", "camaster set m3 --reason x"} {
		if text := s.onTerminal(80, words(command)...).ends(exitDone); strings.Contains(text, "[y/N]") {
			t.Errorf("%s asks:\n%s", command, text)
		}
	}
}

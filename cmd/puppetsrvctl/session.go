package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// session is one run of a command: whom it asks and where it writes.
type session struct {
	ctx    context.Context
	flags  flags
	client *admin.Client // made when it is first needed
}

func newSession(ctx context.Context, f flags) *session { return &session{ctx: ctx, flags: f} }

func (s *session) close() {
	if s.client != nil {
		s.client.Close()
	}
}

// ask returns the client, or why there can be none.
func (s *session) ask() (*admin.Client, error) {
	if s.client == nil {
		var err error
		if s.client, err = connect(s.flags); err != nil {
			return nil, err
		}
	}
	return s.client, nil
}

// page is what stdout is: colours and a width only on a terminal.
func (s *session) page() report.Page {
	p := report.Page{Now: time.Now()}
	fd := int(os.Stdout.Fd())
	if !term.IsTerminal(fd) {
		return p
	}
	p.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	p.Width = 80
	if width, _, err := term.GetSize(fd); err == nil && width > 0 {
		p.Width = max(width, 40) // below that, every line would be cut to nothing
	}
	return p
}

func (s *session) json() bool { return s.flags.Output == "json" }

// show prints an answer: value as JSON, or as the text that table makes of it. It is
// one write, so that nothing is ever half printed.
func (s *session) show(value any, table func(report.Page) string) error {
	if err := context.Cause(s.ctx); err != nil {
		return err // the user has left
	}
	if s.json() {
		return object(value)
	}
	return write(table(s.page()))
}

// object writes JSON that people can read too.
func object(value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return write(string(data) + "\n")
}

func write(text string) error {
	if _, err := os.Stdout.WriteString(text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// confirm asks a question where a person can answer it: on a terminal. A script has
// decided already, and is not asked.
func (s *session) confirm(yes bool, question string) error {
	if yes || !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	// Reading a terminal cannot be interrupted: after Ctrl-C this goroutine ends with
	// the process.
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answer <- line
	}()
	select {
	case <-s.ctx.Done():
		fmt.Fprintln(os.Stderr)
		return context.Cause(s.ctx)
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return fail(exitFailed, "not confirmed; nothing was changed")
	}
}

// host is the master that a person means by name: its first label is enough while
// no other master has the same. What has a dot goes to the server as it is, which
// knows better.
func host(name string, masters []admin.Master) (string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.Contains(name, ".") {
		return name, nil
	}
	var found []string
	for _, m := range masters {
		full := strings.TrimSuffix(m.Host, ".")
		if full == name {
			return name, nil
		}
		if label, _, _ := strings.Cut(full, "."); label == name {
			found = append(found, full)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fail(exitRefused, "no master is called %q; `puppetsrvctl masters` lists them", name)
	}
	slices.Sort(found)
	return "", fail(exitUsage, "%q is more than one master: %s; give the whole name", name, strings.Join(found, ", "))
}

// host finds a master's whole name, asking the server only where that is needed.
func (s *session) host(c *admin.Client, name string) (string, error) {
	if strings.Contains(strings.TrimSuffix(name, "."), ".") {
		return host(name, nil)
	}
	masters, err := c.Masters(s.ctx)
	if err != nil {
		return "", err
	}
	return host(name, masters)
}

// stands is the error of a write that not all have, or nil if they do.
func stands(met bool) error {
	if met {
		return nil
	}
	return fail(exitIncomplete, "the write stands, but not every node to be waited for has acknowledged it; the others get it when they can be reached")
}

// written adds to an interrupted write what is to be known of it.
func (s *session) written(err error) error {
	if err != nil && s.ctx.Err() != nil {
		return fail(exitFailed, "interrupted; whether the write was done is not known: `puppetsrvctl history` says")
	}
	return err
}

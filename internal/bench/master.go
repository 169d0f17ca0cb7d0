package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// masterCommand makes this program a stub master: `bench master ADDRESS FILE`.
// The master is a process of its own, so that it can be killed and stopped as
// a real one is. It takes commands on its standard input, one on a line, and
// ends with that input:
//
//	certificate FILE    certificate and key, shown from now on
//	status CODE WORD    the answer of the status service
const masterCommand = "master"

// runMaster is that process.
func runMaster(in io.Reader, out io.Writer, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: bench %s ADDRESS FILE", masterCommand)
	}
	id, err := readIdentity(args[1])
	if err != nil {
		return err
	}
	m, err := stub.NewMaster(args[0], id)
	if err != nil {
		return err
	}
	defer m.Close()
	fmt.Fprintf(out, "serving at %v\n", m.Addr())
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := command(m, strings.Fields(lines.Text())); err != nil {
			return err
		}
	}
	return nil
}

func command(m *stub.Master, words []string) error {
	switch {
	case len(words) == 2 && words[0] == "certificate":
		id, err := readIdentity(words[1])
		if err != nil {
			return err
		}
		m.SetIdentity(id)
	case len(words) == 3 && words[0] == "status":
		code, err := strconv.Atoi(words[1])
		if err != nil {
			return fmt.Errorf("command %q: %w", words, err)
		}
		m.SetStatus(code, words[2])
	default:
		return fmt.Errorf("unknown command %q", words)
	}
	return nil
}

// readIdentity reads a file that holds a certificate and its key.
func readIdentity(path string) (*stub.Identity, error) {
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return nil, fmt.Errorf("loading a master's certificate: %w", err)
	}
	return &stub.Identity{Certificate: pair}, nil
}

// issue writes a certificate and its key into a file and returns its path.
func (s *site) issue(name string, ca *stub.CA, o stub.IssueOptions) (string, error) {
	id, err := ca.Issue(o)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name+".pem")
	return path, os.WriteFile(path, append(id.CertPEM, id.KeyPEM...), 0o600)
}

// startMaster starts the process of master i.
func (b *bench) startMaster(s *site, i int, identity string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	m := s.masters[i]
	return b.start(m.host, nil, self, masterCommand, fmt.Sprintf("%v:%d", m.address, s.port), identity)
}

// tell sends a command to a master.
func (p *process) tell(format string, args ...any) error {
	if _, err := fmt.Fprintf(p.stdin, format+"\n", args...); err != nil {
		return errors.Join(fmt.Errorf("telling %s: %w", p.name, err), p.alive())
	}
	return nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// state is playground.json, by which other tools find a running playground.
// It appears when everything answers, is replaced whole whenever a process
// ends or starts again, and is removed at the end. Fields are added, never
// renamed; version counts only what would break a reader.
type state struct {
	Version  int    `json:"version"`  // 1
	Zone     string `json:"zone"`     // example.net, no final dot
	Targets  string `json:"targets"`  // host or service
	Camaster string `json:"camaster"` // host name of the configured camaster
	Dir      string `json:"dir"`      // the run directory, absolute
	CA       string `json:"ca"`       // file of the CA certificate that verifies every master and node
	SSLDir   string `json:"ssldir"`   // as Puppet's: the certificate, key and CRL of Operator
	Operator string `json:"operator"` // the certname that may write over https
	PID      int    `json:"pid"`      // of the playground itself
	// Processes are the nodes in order, then the masters in order, then their members.
	Processes []processState `json:"processes"`
}

// processState is one node, master or member. Addresses are host:port.
type processState struct {
	Role       string `json:"role"` // node, master or member
	Name       string `json:"name"` // ns1, m1, m1-member
	Host       string `json:"host"` // ns1.example.net, no final dot
	Service    string `json:"service,omitempty"`
	Datacenter string `json:"datacenter"`
	// Address is where it does its work: DNS over UDP and TCP for a node,
	// HTTPS for a master, and for a member to others.
	Address string `json:"address"`
	Metrics string `json:"metrics,omitempty"` // a node's or member's Prometheus address
	Ready   string `json:"ready,omitempty"`   // a node's readiness address
	// Admin is where a node's API listens: unix:///PATH, then https://IP:PORT; and the
	// socket of a member.
	Admin  []string `json:"admin,omitempty"`
	Gossip string   `json:"gossip,omitempty"` // a node's or member's gossip address, UDP and TCP
	CA     bool     `json:"ca,omitempty"`     // a master that can be the camaster
	// Of a master: the directory of its CA, if it can have one, and its own copy of
	// the CRL.
	CADir   string `json:"cadir,omitempty"`
	HostCRL string `json:"hostcrl,omitempty"`
	// PID is 0 while the process does not run: it was killed and not started
	// again.
	PID int `json:"pid"`
	// Start is when the process started, as the operating system counts, and
	// tells it from a later one that got the same pid.
	Start string `json:"start,omitempty"`
}

func readState(dir string) (state, error) {
	var s state
	b, err := os.ReadFile(filepath.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("reading the playground's state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("reading %s: %w", filepath.Join(dir, stateName), err)
	}
	return s, nil
}

// write replaces the file whole: a reader sees the old state or the new one.
func (s state) write() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the playground's state: %w", err)
	}
	path := filepath.Join(s.Dir, stateName)
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the playground's state: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("writing the playground's state: %w", err)
	}
	return nil
}

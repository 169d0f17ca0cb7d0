package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

type camasterCommand struct {
	Show camasterShow `cmd:"" default:"1" help:"Show who is camaster, since when and why (default)."`
	Set  camasterSet  `cmd:"" help:"Make a master the camaster, and time every node's DNS."`
}

type camasterShow struct{}

func (c *camasterShow) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	camaster, err := client.Camaster(s.ctx)
	if err != nil {
		return err
	}
	return s.show(camaster, func(p report.Page) string { return p.Camaster(camaster) })
}

type camasterSet struct {
	Host   string `arg:"" help:"The new camaster; its first label will do where that is unique."`
	Reason string `required:"" help:"Why, for the history."`
	Expect string `placeholder:"VERSION" help:"Refuse unless this is the version in place. Default: the one read just before."`
	Force  bool   `help:"Pass over the safety rules, and win over a side that cannot be seen."`
	Yes    bool   `short:"y" help:"Do not ask before forcing."`
	waitFlags
}

// setResult is a Result, with what every node's DNS answered.
type setResult struct {
	admin.Result
	Answers []setAnswer `json:"answers"`
	// Role is the state of the new camaster's role, where its member is known, and Steps
	// are what that did.
	Role  string     `json:"role,omitempty"`
	Steps []moveStep `json:"steps,omitempty"`
}

type setAnswer struct {
	Node         string  `json:"node"`
	Address      string  `json:"address,omitempty"`
	Milliseconds float64 `json:"milliseconds,omitempty"` // since the write was sent
	Error        string  `json:"error,omitempty"`
}

func (c *camasterSet) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	status, err := client.Status(s.ctx)
	if err != nil {
		return err
	}
	target, err := host(c.Host, status.Masters)
	if err != nil {
		return err
	}
	current := status.Camaster
	// The first write has to be made, though DNS answers the Corefile's all along: members
	// go by the register alone.
	written := current.Version != "" && current.Version != "0"
	if strings.EqualFold(strings.TrimSuffix(current.Host, "."), target) && current.Handover == "" && written && !c.Force {
		// Also with another --expect: a script that tries again after a time-out must
		// not fail because its first try was done.
		return s.show(current, func(p report.Page) string { return p.Already(current) })
	}
	page := s.page()
	if !s.json() {
		if err := write(page.Replacing(current)); err != nil {
			return err
		}
	}
	if c.Force {
		question := fmt.Sprintf("Make %s the camaster against the safety rules? Nothing then checks that it can be, or that no other one is.", target)
		if err := s.confirm(c.Yes, question); err != nil {
			return err
		}
	}
	set := admin.SetCamaster{Host: target, Reason: c.Reason, Expect: c.Expect, Force: c.Force}
	if set.Expect == "" {
		set.Expect = current.Version
	}
	return c.set(s, client, status, set)
}

// set writes, asks the nodes' DNS, and waits for the role.
func (c *camasterSet) set(s *session, client *admin.Client, status admin.Status, set admin.SetCamaster) error {
	m := s.newMover(client, status, &c.waitFlags)
	err := m.flip(set)
	if len(m.out.Writes) == 0 {
		return err
	}
	if s.json() {
		out := setResult{Result: m.out.Writes[0], Answers: m.out.Answers}
		if m.role != nil {
			out.Role, out.Steps = m.role.State, m.out.Steps
		}
		return errors.Join(object(out), err)
	}
	return err
}

// refused adds to the rules that refused a write what passes over them.
func refused(err error) error {
	var fault *admin.Fault
	if !errors.As(err, &fault) || len(fault.Rules) == 0 {
		return err
	}
	more := *fault
	more.Detail = strings.TrimSuffix(more.Detail, ".") + " (--force passes over these rules)"
	return &more
}

package main

import (
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// The bounds of a drain with an end, as the API has them.
const (
	minDrain = time.Second
	maxDrain = 8760 * time.Hour
)

type drainCommand struct {
	Host   string   `arg:"" help:"The master; its first label will do where that is unique."`
	Reason string   `required:"" help:"Why, for the history."`
	For    duration `placeholder:"DURATION" help:"End by itself after this long, as 30m or 12h. Default: until undrained."`
	Wait   string   `enum:"all,majority,none" default:"all" help:"Whose acknowledgement to wait for: ${enum}."`
}

func (c *drainCommand) Run(s *session) error {
	set := admin.SetDrain{Reason: c.Reason, Wait: admin.Wait(c.Wait)}
	if c.For != 0 {
		d := time.Duration(c.For)
		if d < minDrain || d > maxDrain {
			return fail(exitUsage, "--for is %s: want 1s to 8760h", d)
		}
		set.For = d.String()
	}
	client, err := s.ask()
	if err != nil {
		return err
	}
	name, err := s.host(client, c.Host)
	if err != nil {
		return err
	}
	result, err := client.Drain(s.ctx, name, set)
	if err != nil {
		return s.written(err)
	}
	return s.drained(name, result)
}

type undrainCommand struct {
	Host   string `arg:"" help:"The master; its first label will do where that is unique."`
	Reason string `help:"Why, for the history."`
}

func (c *undrainCommand) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	name, err := s.host(client, c.Host)
	if err != nil {
		return err
	}
	result, err := client.Undrain(s.ctx, name, c.Reason)
	if err != nil {
		return s.written(err)
	}
	if err := s.drained(name, result); err != nil || s.json() {
		return err
	}
	return s.stillDrained(client, name)
}

// stillDrained says that a host's own drain holds on, which its member alone can end.
func (s *session) stillDrained(client *admin.Client, name string) error {
	masters, err := client.Masters(s.ctx)
	if err != nil {
		return nil // what was asked for is done
	}
	for _, m := range masters {
		if strings.TrimSuffix(m.Host, ".") == name && m.Member != nil && m.Member.Fresh {
			if d := m.Member.Evidence.Drain; d.Holds(time.Now()) {
				return write(s.page().OwnDrain(name, d.Reason))
			}
		}
	}
	return nil
}

func (s *session) drained(name string, r admin.Result) error {
	if err := s.show(r, func(p report.Page) string { return p.Drained(name, r) }); err != nil {
		return err
	}
	return stands(r.Met)
}

type historyCommand struct {
	Key   string `arg:"" optional:"" help:"Of what: camaster, or a master's HOST for its drains. Default: everything."`
	Limit int    `default:"20" help:"How many writes at most; 0 is all."`
}

func (c *historyCommand) Run(s *session) error {
	if c.Limit < 0 {
		return fail(exitUsage, "--limit is %d: want 0 or more", c.Limit)
	}
	client, err := s.ask()
	if err != nil {
		return err
	}
	key := c.Key
	if key != "" && key != "camaster" {
		name, err := s.host(client, strings.TrimPrefix(key, "drain/"))
		if err != nil {
			return err
		}
		key = "drain/" + name
	}
	writes, err := client.History(s.ctx, key, c.Limit)
	if err != nil {
		return err
	}
	return s.show(admin.History{Writes: writes}, func(p report.Page) string { return p.History(writes) })
}

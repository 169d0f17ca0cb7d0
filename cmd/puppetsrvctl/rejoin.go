package main

import (
	"errors"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

type rejoinCommand struct {
	Host     string   `arg:"" help:"The former camaster; its first label will do where that is unique."`
	RoleWait duration `name:"role-wait" default:"10m" help:"How long to wait until it is done; 0s does not wait."`
}

// rejoined is what became of it: the object of -o json.
type rejoined struct {
	Host    string           `json:"host"`
	Already bool             `json:"already,omitempty"` // it is a standby
	Rejoin  *evidence.Rejoin `json:"rejoin,omitempty"`
	Role    string           `json:"role,omitempty"` // its state
	Steps   []moveStep       `json:"steps"`
}

func (c *rejoinCommand) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	name, err := s.host(client, c.Host)
	if err != nil {
		return err
	}
	master, err := client.Master(s.ctx, name)
	if err != nil {
		return err
	}
	name = trim(master.Host)
	m := s.newMover(client, admin.Status{Masters: []admin.Master{master}}, &waitFlags{RoleWait: c.RoleWait})
	out := rejoined{Host: name}
	end := func(err error) error {
		out.Steps = m.out.Steps
		if s.json() {
			return errors.Join(object(out), err)
		}
		return err
	}
	role := master.Role()
	if role != nil && role.State == evidence.Standby && !role.Former && !master.Camaster {
		out.Already, out.Role = true, role.State
		return errors.Join(m.say(m.page.Standby(name, true)), end(nil))
	}
	id := ""
	if role != nil && role.Rejoin != nil && role.Rejoin.State == "running" {
		id = role.Rejoin.ID // it was asked for before
	} else {
		asked, err := client.Rejoin(s.ctx, name)
		if err != nil {
			return s.asked(err)
		}
		id = asked.ID
	}
	out.Rejoin = &evidence.Rejoin{ID: id, State: "running"}
	if c.RoleWait == 0 {
		return errors.Join(m.say(m.page.Rejoining(name)), end(nil))
	}
	if err := m.say(m.page.Rejoining(name)); err != nil {
		return err
	}
	began := time.Now()
	err = m.every(func() (bool, error) {
		master, err := client.Master(s.ctx, name)
		if skip, err := m.asks(err); skip || err != nil {
			return false, err
		}
		r := master.Role()
		if r == nil {
			return false, nil
		}
		out.Role = r.State
		if err := m.steps(name, r.Version, r); err != nil {
			return false, err
		}
		if r.Rejoin == nil || r.Rejoin.ID != id {
			return false, nil
		}
		out.Rejoin = r.Rejoin
		return r.Rejoin.State != "running" && (r.Rejoin.State != "done" || r.State == evidence.Standby), nil
	})
	switch {
	case errors.Is(err, errLate):
		return end(fail(exitIncomplete, "%s is not a standby after %s, and its member goes on: the same command again waits on", name, time.Duration(c.RoleWait)))
	case err != nil && s.ctx.Err() != nil:
		return end(fail(exitFailed, "interrupted; the member on %s goes on: the same command again waits on", name))
	case err != nil:
		return end(err)
	case out.Rejoin.State == "failed":
		return end(fail(exitFailed, "%s does not become a standby: %s", name, report.Clean(out.Rejoin.Detail)))
	case out.Rejoin.State == "manual":
		return errors.Join(m.say(m.page.Manual(name, out.Rejoin.Detail)), end(fail(exitIncomplete, "%s is to be made a standby by hand, and then by the same command again", name)))
	}
	return errors.Join(m.say(m.page.Standby(name, false)+m.page.Took(time.Since(began))), end(nil))
}

// asked adds to an interrupted question what is to be known of it.
func (s *session) asked(err error) error {
	if s.ctx.Err() != nil {
		return fail(exitFailed, "interrupted; whether the member was asked is not known: the same command again is safe")
	}
	return err
}

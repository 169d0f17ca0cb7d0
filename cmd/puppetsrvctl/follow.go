package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// follow waits until every living node's DNS answers a host, and its role is open
// under a version. Where no member is known there, it is not waited for.
func (m *mover) follow(ask *asking, answers <-chan dnsAnswer, host, version string) error {
	servers := ask.servers()
	line := m.page.Answers(columns(servers))
	if len(servers) > 0 {
		if err := m.say("DNS answers the new name, from when the write was sent:\n"); err != nil {
			return err
		}
	}
	m.asked = len(ask.living)
	var slowest time.Duration
	take := func(x dnsAnswer) error {
		one, text := ask.outcome(x)
		if x.Err != "" && !x.dead {
			m.missing++
		}
		if x.Err == "" && !x.dead {
			slowest = max(slowest, text.After)
		}
		m.out.Answers = append(m.out.Answers, one)
		return m.say(line(text))
	}
	tick := time.NewTicker(glance)
	defer tick.Stop()
	late := time.NewTimer(time.Until(m.late))
	defer late.Stop()
	open, timeUp := m.roleWait == 0, false
	var err error
	if !open {
		open, err = m.look(host, version)
	}
	for err == nil && (answers != nil || !open && !timeUp) {
		select {
		case x, ok := <-answers:
			if ok {
				err = take(x)
			} else if answers = nil; m.asked > m.missing {
				m.out.Phases = append(m.out.Phases, phase{"DNS on all nodes", milliseconds(slowest), milliseconds(ask.began.Add(slowest).Sub(m.began))})
			}
		case <-tick.C:
			if !open && !timeUp {
				open, err = m.look(host, version)
			}
		case <-late.C:
			timeUp = true
		case <-m.s.ctx.Done():
			asked := answers == nil
			for x := range orClosed(answers) {
				if err := take(x); err != nil {
					return err
				}
			}
			if !asked {
				return fail(exitFailed, "interrupted while asking the nodes' DNS; the write stands")
			}
			return fail(exitFailed, "interrupted while waiting for the role on %s; the write stands", host)
		}
	}
	m.services()
	switch {
	case err != nil:
		return err
	case m.missing > 0:
		return fail(exitIncomplete, "the write stands, but %d of %d DNS servers did not answer the new name within %s", m.missing, m.asked, m.dnsWait)
	case !open:
		return fail(exitIncomplete, "%s is camaster, but after %s its role is not open: %s", host, m.roleWait, m.unopened())
	}
	return nil
}

// orClosed is a channel that can be read to its end.
func orClosed(c <-chan dnsAnswer) <-chan dnsAnswer {
	if c != nil {
		return c
	}
	closed := make(chan dnsAnswer)
	close(closed)
	return closed
}

// unopened is why a role is not open.
func (m *mover) unopened() string {
	if m.role == nil {
		return "its member says nothing of it"
	}
	text := "it is " + m.role.State + " under " + m.role.Version
	if m.role.Reason != "" {
		text += ": " + m.role.Reason
	}
	return report.Clean(text)
}

// look asks for the role on a host, and tells of its steps. It is done where the role is
// open, or nobody is there who would open it.
func (m *mover) look(host, version string) (done bool, err error) {
	current, err := m.client.Camaster(m.s.ctx)
	var master admin.Master
	if err == nil {
		master, err = m.client.Master(m.s.ctx, host)
	}
	if done, err := m.asks(err); done || err != nil {
		return false, err
	}
	if v := current.Version; v != version {
		return false, fail(exitIncomplete, "version %s was written meanwhile by %s (%s): %s is camaster now; look at `puppetsrvctl history camaster`",
			report.Clean(v), report.Clean(current.Actor), report.Clean(current.Reason), trim(current.Host))
	}
	r := master.Role()
	if m.role = r; r == nil {
		return true, nil
	}
	if err := m.steps(host, version, r); err != nil {
		return false, err
	}
	if r.Version == version {
		for _, s := range r.Services {
			if _, seen := m.opened[s.Name]; s.State == "open" && !seen {
				m.opened[s.Name] = time.Since(m.began)
			}
		}
	}
	m.out.Open = r.State == evidence.Open && r.Version == version
	return m.out.Open, nil
}

// asks judges an error of a question that is put again and again: skip is true where it
// is to be put again, as a node may restart or be busy.
func (m *mover) asks(err error) (skip bool, _ error) {
	switch {
	case err == nil:
		m.absent = time.Time{}
		return false, nil
	case m.s.ctx.Err() != nil:
		return true, nil // who waits says what that means
	case !passing(err):
		return false, err
	case m.absent.IsZero():
		m.absent = time.Now()
	case time.Since(m.absent) > absence:
		var fault *admin.Fault
		if errors.As(err, &fault) && fault.Status != http.StatusTooManyRequests {
			return false, err
		}
		return false, fail(exitUnreachable, "%s\nwhat was written stands: the same command again, also by another node, goes on from there", report.Clean(err.Error()))
	}
	return true, nil
}

// every does something again and again until it is done, or late.
func (m *mover) every(f func() (done bool, err error)) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		done, err := f()
		switch {
		case m.s.ctx.Err() != nil:
			return context.Cause(m.s.ctx)
		case done || err != nil:
			return err
		case time.Now().After(m.late):
			return errLate
		}
		select {
		case <-m.s.ctx.Done():
			return context.Cause(m.s.ctx)
		case <-tick.C:
		}
	}
}

// steps tells of the steps for a version, each once when it is done, or has failed.
func (m *mover) steps(host, version string, r *evidence.Role) error {
	for _, s := range r.Steps {
		if s.Version != version {
			continue
		}
		key := strings.Join([]string{host, version, s.Service, s.Name, s.State}, "\x00")
		switch s.State {
		case "done":
		case "failed": // it is tried again, and told again if it fails in another way
			key += s.Detail
		case "running":
			if since, ok := m.running[key]; !ok {
				m.running[key] = time.Now()
				continue
			} else if time.Since(since) < lengthy {
				continue
			}
		default:
			continue
		}
		if m.told[key] {
			continue
		}
		m.told[key] = true
		if s.State != "running" {
			m.out.Steps = append(m.out.Steps, moveStep{trim(host), s})
		}
		if err := m.say(m.line(report.Step{Host: host, Step: s})); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

type switchoverCommand struct {
	moveFlags
	Abort bool `help:"End a handover that has not come to the flip: the old camaster opens again."`
}

// drainFor is how long the old camaster is drained at most, should nobody end it.
const drainFor = 10 * time.Minute

func (c *switchoverCommand) Run(s *session) error {
	if c.Abort {
		return c.abort(s)
	}
	if err := c.check("switchover"); err != nil {
		return err
	}
	m, target, err := c.begin(s, admin.KindSwitchover)
	if err != nil {
		return err
	}
	current := m.status.Camaster
	old := trim(current.Host)
	if strings.EqualFold(old, target) && current.Handover == "" {
		err := m.done(m.standing(target), target, goesOn)
		if c.DryRun {
			return err
		}
		return errors.Join(err, m.undrain(target))
	}
	plan, err := m.plan(&c.moveFlags, target)
	if err != nil {
		return err
	}
	if plan.Handover && !c.DryRun { // begun before
		if err := m.say(m.page.Moving(*plan)); err != nil {
			return err
		}
	} else if err := m.show(&c.moveFlags, plan); err != nil || c.DryRun {
		return err
	} else if err := m.confirmed(&c.moveFlags, plan); err != nil {
		return err
	}
	m.began = time.Now()
	err = c.run(m, plan, old, target)
	if len(m.out.Writes) > 0 || plan.Handover {
		err = again(err, goesOn)
	}
	return m.finish(err)
}

const goesOn = "the same command again goes on from there"

// run does what is left to do.
func (c *switchoverCommand) run(m *mover, plan *admin.Plan, old, target string) error {
	version := plan.Version
	if !plan.Handover {
		if err := m.drain(old, target, c.Reason); err != nil {
			return err
		}
		sent := time.Now()
		result, err := m.write(admin.SetCamaster{
			Host: old, Handover: target, Reason: c.Reason, Expect: version, Kind: admin.KindHandover, AcceptDataLoss: c.AcceptDataLoss, Force: c.Force,
		})
		if err != nil {
			return err
		}
		version = result.Write.Version
		m.phase("handover written", time.Since(sent))
		if err := m.say(m.page.HandingOver(result)); err != nil {
			return err
		}
	}
	if err := m.handover(&c.moveFlags, old, target, version); err != nil {
		return err
	}
	err := m.flip(admin.SetCamaster{
		Host: target, Reason: c.Reason, Expect: version, Kind: admin.KindSwitchover, AcceptDataLoss: c.AcceptDataLoss, Force: c.Force,
	})
	if len(m.out.Writes) == 0 || m.out.Version == version {
		return err // it was not written
	}
	return errors.Join(err, m.undrain(target))
}

// handover waits until everything on the old camaster is closed, and the new one has
// everything. What does not come by itself has to be passed by flags.
func (m *mover) handover(f *moveFlags, old, target, version string) error {
	began := time.Now()
	var left []admin.Condition
	var plan admin.Plan
	err := m.every(func() (bool, error) {
		var err error
		plan, err = m.client.Plan(m.s.ctx, admin.KindSwitchover, target)
		var master admin.Master
		if err == nil {
			master, err = m.client.Master(m.s.ctx, old)
		}
		if skip, err := m.asks(err); skip || err != nil {
			return false, err
		}
		if plan.Version != version {
			return false, fail(exitIncomplete, "version %s was written meanwhile: look at `puppetsrvctl history camaster`", report.Clean(plan.Version))
		}
		if r := master.Role(); r != nil {
			if err := m.steps(old, version, r); err != nil {
				return false, err
			}
		}
		// No flag stands for what is waited for: that would be a flip in the middle of it.
		left = slices.DeleteFunc(slices.Clone(plan.Conditions), func(c admin.Condition) bool {
			return !c.Refuses(f.AcceptDataLoss && !c.Waits, f.Force && !c.Waits)
		})
		for i := range left {
			if left[i].Waits {
				left[i].Passed = "" // as far as this command goes
			}
		}
		return len(left) == 0, nil
	})
	switch {
	case errors.Is(err, errLate):
		return fail(exitIncomplete, "%s is closed, and after %s %s cannot be the camaster yet:%s\n`puppetsrvctl switchover --abort` opens %[1]s again; if that host is lost, `puppetsrvctl failover --to %[3]s` goes on without it",
			old, m.roleWait, target, report.Refusals(left))
	case err != nil && m.s.ctx.Err() != nil:
		return fail(exitFailed, "interrupted; %s is closed for %s: `puppetsrvctl switchover --abort` opens it again", old, target)
	case err != nil:
		return err
	}
	m.phase("closed and handed over", time.Since(began))
	return m.say(m.page.Passed(plan))
}

// mark begins the reason of a drain that is a switchover's own.
const mark = "switchover to "

// drain drains the old camaster, unless somebody else has.
func (m *mover) drain(old, target, reason string) error {
	if x := m.master(old); x == nil || x.Drain != nil {
		return nil
	}
	text := mark + target + ": " + reason
	for len(text) > register.MaxReason {
		runes := []rune(text)
		text = string(runes[:len(runes)-1])
	}
	began := time.Now()
	if _, err := m.client.Drain(m.s.ctx, old, admin.SetDrain{Reason: text, For: drainFor.String(), Wait: m.wait}); err != nil {
		return m.s.written(err)
	}
	m.phase("drain", time.Since(began))
	return m.say(fmt.Sprintf("%s is drained, so that it gets no new work\n", old))
}

// undrain ends the drains that switchovers to a target have made; with target "" those
// of all.
func (m *mover) undrain(target string) error {
	if m.s.ctx.Err() != nil {
		return nil // they end by themselves
	}
	masters, err := m.client.Masters(m.s.ctx)
	if err != nil {
		return fail(exitIncomplete, "drains are not ended, and end by themselves: %s", report.Clean(err.Error()))
	}
	for _, x := range masters {
		if x.Drain == nil || !strings.HasPrefix(x.Drain.Reason, mark) || target != "" && !strings.HasPrefix(x.Drain.Reason, mark+target+": ") {
			continue
		}
		if _, err := m.client.Undrain(m.s.ctx, trim(x.Host), "the switchover is over"); err != nil {
			return fail(exitIncomplete, "the drain of %s is not ended, and ends by itself: %s", trim(x.Host), report.Clean(err.Error()))
		}
		if err := m.say(fmt.Sprintf("%s gets work again\n", trim(x.Host))); err != nil {
			return err
		}
	}
	return nil
}

// abort makes the camaster what it was before the handover.
func (c *switchoverCommand) abort(s *session) error {
	if c.Reason == "" {
		return fail(exitUsage, "missing flags: --reason=TEXT\nsee `puppetsrvctl switchover --help`")
	}
	m, _, err := c.begin(s, admin.KindSet)
	if err != nil {
		return err
	}
	current := m.status.Camaster
	old := trim(current.Host)
	m.out.To, m.out.Aborted = old, true
	if current.Handover == "" {
		m.out.Already = true
		if err := m.say(m.page.NoHandover(current)); err != nil {
			return err
		}
		return m.finish(m.undrain(""))
	}
	if c.DryRun {
		return fail(exitUsage, "--abort has no plan: it makes %s the camaster again", old)
	}
	m.began = time.Now()
	err = m.flip(admin.SetCamaster{Host: old, Reason: c.Reason, Expect: current.Version, Force: c.Force})
	if len(m.out.Writes) > 0 {
		err = errors.Join(again(err, goesOn), m.undrain(""))
	}
	return m.finish(err)
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// waitFlags say what a command that moves the camaster waits for.
type waitFlags struct {
	Wait     string   `enum:"all,majority,none" default:"all" help:"Whose acknowledgement to wait for: ${enum}."`
	DNSWait  duration `name:"dns-wait" default:"5s" help:"How long to ask every node's DNS for the new name, from the write's return; 0s does not ask."`
	RoleWait duration `name:"role-wait" default:"2m" help:"How long to wait in all for the roles on the masters, where their members are known; 0s does not wait."`
}

// moveFlags are those of failover and switchover.
type moveFlags struct {
	To             string `placeholder:"HOST" help:"The new camaster; its first label will do where that is unique."`
	Reason         string `placeholder:"TEXT" help:"Why, for the history."`
	DryRun         bool   `name:"dry-run" help:"Print the plan with every condition, and change nothing; exit with 3 if it would be refused."`
	AcceptDataLoss bool   `name:"accept-data-loss" help:"Go on although data may be lost; how much, the plan says."`
	Force          bool   `help:"Pass over the conditions, but those of a loss of data."`
	Yes            bool   `short:"y" help:"Do not ask before accepting a loss or forcing."`
	waitFlags
}

// check says what is missing; a plan needs no reason.
func (f *moveFlags) check(command string) error {
	var missing []string
	if f.To == "" {
		missing = append(missing, "--to=HOST")
	}
	if f.Reason == "" && !f.DryRun {
		missing = append(missing, "--reason=TEXT")
	}
	switch {
	case len(missing) > 0:
		return fail(exitUsage, "missing flags: %s\nsee `puppetsrvctl %s --help`", strings.Join(missing, ", "), command)
	case f.RoleWait == 0 && command == "switchover":
		return fail(exitUsage, "--role-wait is 0s: a switchover has to wait until the new camaster has everything")
	}
	return nil
}

// begin reads how everything stands.
func (f *moveFlags) begin(s *session, kind admin.Kind) (*mover, string, error) {
	client, err := s.ask()
	if err != nil {
		return nil, "", err
	}
	status, err := client.Status(s.ctx)
	if err != nil {
		return nil, "", err
	}
	target := ""
	if f.To != "" {
		if target, err = host(f.To, status.Masters); err != nil {
			return nil, "", err
		}
	}
	m := s.newMover(client, status, &f.waitFlags)
	m.out.Kind, m.out.To, m.out.DryRun = kind, target, f.DryRun
	return m, target, nil
}

// plan asks for the plan. A camaster that was lost a moment ago is about to be seen so,
// and is looked at again.
func (m *mover) plan(f *moveFlags, target string) (*admin.Plan, error) {
	patience := time.Now().Add(moment)
	if f.DryRun || m.out.Kind != admin.KindFailover {
		patience = time.Now()
	}
	for {
		plan, err := m.client.Plan(m.s.ctx, m.out.Kind, target)
		if err != nil {
			return nil, err
		}
		if !onlyWaits(refusing(&plan, f)) || time.Now().After(patience) {
			m.out.Plan = &plan
			return &plan, nil
		}
		select {
		case <-m.s.ctx.Done():
			return nil, context.Cause(m.s.ctx)
		case <-time.After(glance):
		}
	}
}

// moment is how long a camaster that is still seen up is looked at.
const moment = 2 * time.Second

// refusing are the conditions that are in the way.
func refusing(plan *admin.Plan, f *moveFlags) []admin.Condition {
	return slices.DeleteFunc(slices.Clone(plan.Conditions), func(c admin.Condition) bool { return !c.Refuses(f.AcceptDataLoss, f.Force) })
}

// onlyWaits reports whether there is something in the way, and all of it may be gone in
// a moment.
func onlyWaits(conditions []admin.Condition) bool {
	return len(conditions) > 0 && !slices.ContainsFunc(conditions, func(c admin.Condition) bool { return !c.Waits })
}

// show prints the plan, whole for a dry run; its error is why it must not be done.
func (m *mover) show(f *moveFlags, plan *admin.Plan) error {
	stand := refusing(plan, f)
	if f.DryRun {
		if m.s.json() {
			if err := object(plan); err != nil {
				return err
			}
		} else if err := write(m.page.Plan(*plan, f.AcceptDataLoss, f.Force)); err != nil {
			return err
		}
		if len(stand) > 0 {
			return fail(exitRefused, "it would be refused:%s", report.Refusals(stand))
		}
		return nil
	}
	if len(stand) > 0 {
		return m.finish(fail(exitRefused, "%s cannot safely become the camaster:%s", plan.To, report.Refusals(stand)))
	}
	return m.say(m.page.Moving(*plan))
}

// confirmed asks before what cannot be taken back.
func (m *mover) confirmed(f *moveFlags, plan *admin.Plan) error {
	passed := slices.DeleteFunc(refusing(plan, &moveFlags{}), func(c admin.Condition) bool { return c.Refuses(f.AcceptDataLoss, f.Force) })
	if len(passed) == 0 {
		return nil
	}
	return m.s.confirm(f.Yes, fmt.Sprintf("Make %s the camaster all the same? This is passed over:%s\n", plan.To, report.Refusals(passed)))
}

type failoverCommand struct{ moveFlags }

func (c *failoverCommand) Run(s *session) error {
	if err := c.check("failover"); err != nil {
		return err
	}
	m, target, err := c.begin(s, admin.KindFailover)
	if err != nil {
		return err
	}
	const goesOn = "the same command again goes on from there"
	current := m.status.Camaster
	if strings.EqualFold(trim(current.Host), target) && current.Handover == "" {
		if standing := m.standing(target); standing != "waiting" || c.DryRun {
			return m.done(standing, target, goesOn)
		}
		// It was started anew meanwhile. A new write is for its new start.
	}
	plan, err := m.plan(&c.moveFlags, target)
	if err != nil {
		return err
	}
	if err := m.show(&c.moveFlags, plan); err != nil || c.DryRun {
		return err
	}
	if err := m.confirmed(&c.moveFlags, plan); err != nil {
		return err
	}
	m.began = time.Now()
	err = m.flip(admin.SetCamaster{
		Host: target, Reason: c.Reason, Expect: plan.Version, Kind: admin.KindFailover, AcceptDataLoss: c.AcceptDataLoss, Force: c.Force,
	})
	if len(m.out.Writes) > 0 {
		err = again(err, goesOn)
	}
	return m.finish(err)
}

// standing is how far a move is that was made before: open, nobody where no member
// would open it, waiting where it will not open by itself, or on its way.
func (m *mover) standing(target string) string {
	master := m.master(target)
	var role *evidence.Role
	if master != nil {
		role = master.Role()
	}
	switch {
	case role == nil:
		return "nobody"
	case role.State == evidence.Open && role.Version == m.status.Camaster.Version:
		return "open"
	case role.State == evidence.Waiting && len(role.Waits) > 0:
		return "waiting"
	}
	return "on its way"
}

// done says that a move was made before, and waits for what is left of it.
func (m *mover) done(standing, target, goesOn string) error {
	m.out.Already = true
	m.out.Open = standing == "open"
	if err := m.say(m.page.Already(m.status.Camaster)); err != nil {
		return err
	}
	if standing != "on its way" || m.out.DryRun {
		return m.finish(nil)
	}
	return m.finish(again(m.resume(target), "%s", goesOn))
}

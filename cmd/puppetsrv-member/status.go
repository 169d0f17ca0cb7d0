package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/member"
)

type output struct {
	Output string `short:"o" enum:"table,json" default:"table" help:"For people (table) or for programs (json)."`
}

type statusCommand struct{ output }

func (c statusCommand) Run(e *environment) error {
	local, err := e.local()
	if err != nil {
		return err
	}
	s, err := local.Status(e.ctx)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return e.json(s)
	}
	return e.say("%s", strings.TrimRight(statusText(&s, time.Now()), "\n"))
}

// statusText is one screen.
func statusText(s *member.LocalStatus, now time.Time) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(key, format string, v ...any) { fmt.Fprintf(w, "%s\t%s\n", key, fmt.Sprintf(format, v...)) }
	row("member", "%s, version %s, since %s", s.Certname, s.Release, s.Started.UTC().Format(time.RFC3339))
	switch {
	case s.Camaster == "":
		row("camaster", "never set, as far as is known here")
	default:
		row("camaster", "%s (version %s)", s.Camaster, s.Version)
	}
	if len(s.Missing) > 0 {
		row("not heard", "%s, since the start", strings.Join(s.Missing, ", "))
	}
	var members []string
	for _, m := range s.Members {
		members = append(members, m.Name+" "+m.State)
	}
	row("members", "%s", orNone(members))
	host(row, &s.Evidence, now)
	for _, p := range s.Problems {
		row("problem", "%s", p)
	}
	w.Flush()
	return b.String()
}

func orNone(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// host is what there is on it.
func host(row func(key, format string, v ...any), e *evidence.Evidence, now time.Time) {
	if r := e.Role; r != nil {
		text := r.State
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		row("role", "%s", text)
		for _, s := range r.Services {
			row("  "+s.Name, "%s", strings.TrimSuffix(s.State+": "+s.Detail, ": "))
		}
	}
	if e.Drain != nil {
		row("drained", "%s", e.Drain.Reason)
	}
	p := &e.Puppetserver
	row("puppetserver", "%s", strings.TrimSuffix(p.State+": "+p.Detail, ": "))
	switch {
	case p.Compiles != nil && !*p.Compiles:
		row("", "it cannot compile: %s", p.CompileDetail)
	case p.Compiles == nil && p.CompileDetail != "":
		row("", "whether it compiles is not known: %s", p.CompileDetail)
	}
	if c := e.CA; c != nil {
		switch {
		case c.Problem != "":
			row("CA files", "%s", c.Problem)
		case c.Source != "":
			row("CA files", "serial %s, %d signed, as on %s %s ago", c.Serial, c.Signed, c.Source, ago(now, c.Synced))
		default:
			row("CA files", "serial %s, %d signed", c.Serial, c.Signed)
		}
		if c.Error != "" {
			row("", "%s", c.Error)
		}
	}
	if d := e.PostgreSQL; d != nil {
		text := d.Role
		if d.Error != "" {
			text += ": " + d.Error
		}
		if lag, known := d.Lag(); d.Role == "standby" && known {
			text += fmt.Sprintf(", %d bytes behind, everything until %s ago is here", lag, ago(now, d.Current))
		}
		row("PostgreSQL", "%s", text)
	}
	if d := e.PuppetDB; d != nil {
		row("PuppetDB", "%s", strings.TrimSuffix(d.State+": "+d.Error, ": "))
	}
	if c := e.CRL; c != nil && !c.NextUpdate.IsZero() {
		row("CRL", "number %s, good until %s", c.Number, c.NextUpdate.UTC().Format(time.RFC3339))
	}
	if c := e.Certificate; c != nil && c.Error == "" {
		row("certificate", "%s, good until %s", strings.Join(c.Names, ", "), c.NotAfter.UTC().Format(time.RFC3339))
	}
}

// ago is how long something is past, to a person's precision.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	d := now.Sub(then)
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

type planCommand struct {
	output
	To string `arg:"" enum:"open,closed,standby" help:"One of ${enum}."`
}

func (c planCommand) Run(e *environment) error {
	local, err := e.local()
	if err != nil {
		return err
	}
	p, err := local.Plan(e.ctx, c.To)
	if err != nil {
		return fail(exitRefused, "it cannot become %s: %v", c.To, err)
	}
	if c.Output == "json" {
		return e.json(p)
	}
	if len(p.Steps) == 0 {
		return e.say("nothing to do: everything is %s", c.To)
	}
	for i, s := range p.Steps {
		if err := e.say("%d. %s: %s\n   %s", i+1, s.Service, s.Name, s.Detail); err != nil {
			return err
		}
	}
	return nil
}

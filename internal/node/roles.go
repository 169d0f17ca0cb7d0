package node

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// expiringSoon is how long before their end revocation lists of hosts are told of.
// They are made anew long before, as long as somebody makes them.
const expiringSoon = 7 * 24 * time.Hour

// roleProblems are what a person should look at on the masters' hosts, as their members
// say.
func (n api) roleProblems(p *picture, now time.Time, add func(severity, subject, format string, args ...any)) {
	v, version, written := camaster.Of(p.registers)
	e, _ := p.registers.Get(camaster.Key)
	// Just written: members are about to do what it says.
	moving := written && now.Sub(e.Time) < settle
	var from *member
	if peer := p.member(p.camaster()); peer != nil {
		from = memberOf(peer, now)
	}
	if v.Handover != "" && !moving {
		add("warning", "camaster", "%s hands over to %s since %s, and is closed meanwhile: `puppetsrvctl switchover --to %[2]s` finishes that, `--abort` ends it", host(v.Host), host(v.Handover), e.Time.UTC().Format(time.RFC3339))
	}
	for i := range p.plan.Topology.Masters {
		m := &p.plan.Topology.Masters[i]
		peer := p.member(m.Host)
		if peer == nil {
			continue
		}
		o := one{add: add, host: host(m.Host), member: memberOf(peer, now), is: m.Host == p.camaster(), version: version.String(), moving: moving, handing: v.Handover != "", now: now}
		o.role()
		if o.member.fresh {
			o.evidence(from)
		}
	}
}

// one is a host whose member is looked at for problems.
type one struct {
	add     func(severity, subject, format string, args ...any)
	host    string
	member  *member
	is      bool // it is the camaster
	version string
	moving  bool // the register was written a moment ago
	handing bool // the camaster hands over
	now     time.Time
}

func (o *one) say(severity, format string, args ...any) {
	o.add(severity, o.host, "%s", fmt.Sprintf(format, args...))
}

func (o *one) role() {
	r := o.member.evidence.Role
	if r == nil || o.moving {
		return
	}
	open := r.State == evidence.Open || r.State == evidence.Opening
	for _, s := range r.Services {
		open = open || s.State == "open"
	}
	reason := after(": ", r.Reason)
	switch {
	case !o.member.fresh && open && !o.is:
		o.say("error", "%s was open under %s when it was last heard, and it is not known whether it is closed: its member is %s", o.host, r.Version, o.member.silence())
	case !o.member.fresh:
	case open && !o.is && r.State != evidence.Closing:
		o.say("error", "the role on %s is %s under %s, and it is not the camaster: close it, `puppetsrv-member status` there says why it is not%s", o.host, r.State, r.Version, reason)
	case r.State == evidence.Failed:
		o.say("error", "the role on %s fails, and is tried again%s", o.host, reason)
	case o.is && o.handing && r.Unclean != "":
		o.say("warning", "what was closed on %s for the handover may not all have reached the others: %s", o.host, r.Unclean)
	case o.is && o.handing:
	case o.is && r.State != evidence.Open:
		o.say("error", "%s is the camaster, and its role is %s%s", o.host, r.State, reason)
	case r.State == evidence.Closed && !r.Former && !o.is:
		o.say("warning", "the role on %s is closed, and it follows nobody%s", o.host, reason)
	case r.Former:
		o.say("warning", "%s was the camaster and is closed: `puppetsrvctl rejoin %[1]s` makes it a standby", o.host)
	}
}

// evidence is what is not well with what a camaster has, or needs to become one.
func (o *one) evidence(from *member) {
	e := o.member.evidence
	if ca := e.CA; ca != nil && !ca.Complete {
		o.say("error", "the CA's files on %s are not complete: %s", o.host, ca.Problem)
	} else if ca != nil && ca.Error != "" && !o.is {
		o.say("error", "the CA on %s does not follow the camaster's%s: %s", o.host, lastSame(ca, o.now), ca.Error)
	}
	o.crl("its CRL", e.CRL)
	if e.CA != nil {
		o.crl("the CRL of its CA", e.CA.CRL)
	}
	if pg := e.PostgreSQL; pg != nil {
		lag, known := pg.Lag()
		switch {
		case pg.Error != "":
			o.say("warning", "PostgreSQL on %s: %s", o.host, pg.Error)
		case o.is || pg.Role != "standby":
		case !pg.Streaming:
			o.say("warning", "PostgreSQL on %s is a standby without a connection to its primary", o.host)
		case known && lag > pg.MaxLag:
			o.say("warning", "PostgreSQL on %s is %d bytes behind: more than %d refuse a failover", o.host, lag, pg.MaxLag)
		}
	}
	if db := e.PuppetDB; db != nil && db.Error != "" {
		o.say("warning", "PuppetDB on %s: %s", o.host, db.Error)
	}
	if o.is || from == nil || !from.fresh {
		return
	}
	if differ := differing(e.Code, from.evidence.Code); len(differ) > 0 && len(e.Code) > 0 && len(from.evidence.Code) > 0 {
		o.say("warning", "the code on %s is not that of the camaster: %s", o.host, strings.Join(differ, "; "))
	}
}

func (o *one) crl(what string, crl *evidence.CRL) {
	switch {
	case crl == nil:
	case crl.Error != "":
		o.say("error", "%s: %s cannot be used: %s", o.host, what, crl.Error)
	case crl.NextUpdate.IsZero():
	case !crl.NextUpdate.After(o.now):
		o.say("error", "%s: %s has expired, nobody is let in there: make a new one on the CA", o.host, what)
	case crl.NextUpdate.Sub(o.now) < expiringSoon:
		o.say("warning", "%s: %s expires at %s: make a new one on the CA", o.host, what, crl.NextUpdate.UTC().Format(time.RFC3339))
	}
}

func lastSame(ca *evidence.CA, now time.Time) string {
	if ca.Synced.IsZero() {
		return " and never was the same"
	}
	return fmt.Sprintf(" since %s", now.Sub(ca.Synced).Round(time.Second))
}

// camasterText is a write of the camaster for people.
func camasterText(w *admin.Write) string {
	text := fmt.Sprintf("%s is camaster: %s (%s)", w.To, w.Reason, w.Actor)
	switch w.Kind {
	case admin.KindHandover:
		text = fmt.Sprintf("%s hands over to %s: %s (%s)", w.To, w.Handover, w.Reason, w.Actor)
	case admin.KindFailover:
		text = fmt.Sprintf("%s is camaster in place of %s, which is lost: %s (%s)", w.To, w.From, w.Reason, w.Actor)
	}
	return text + after("; accepted loss: ", w.Accepted)
}

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"
)

// answered is what a run of puppetsrvctl has answered.
type answered struct {
	code           int
	stdout, stderr string
}

// ctl runs puppetsrvctl.
func (p *playground) ctl(server string, args ...string) answered {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "puppetsrvctl"), args...)
	cmd.Env = append(environ(), "PUPPETSRV_SERVER="+server)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		p.t.Fatal(err)
	}
	return answered{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// socket is where the API of a node answers this machine.
func (p *playground) socket(name string) string {
	return "unix://" + filepath.Join(p.dir, name+".sock")
}

// reads has puppetsrvctl read something through a node's socket.
func (p *playground) reads(name string, into any, args ...string) {
	p.t.Helper()
	a := p.ctl(p.socket(name), append(args, "-o", "json")...)
	if a.code != 0 {
		p.t.Fatalf("puppetsrvctl %v: exit code %d: %s", args, a.code, a.stderr)
	}
	if err := json.Unmarshal([]byte(a.stdout), into); err != nil {
		p.t.Fatalf("puppetsrvctl %v: %v: %s", args, err, a.stdout)
	}
}

// camaster is the register as scripts see it.
type camaster struct {
	Host, Version, Reason, Actor string
}

func (p *playground) camaster(name string) (c camaster) {
	p.t.Helper()
	p.reads(name, &c, "camaster")
	return c
}

// member is the state in which a node sees another.
func (p *playground) member(at, host string) string {
	p.t.Helper()
	var c struct {
		Members []struct{ Name, State string }
	}
	p.reads(at, &c, "cluster")
	for _, m := range c.Members {
		if m.Name == host {
			return m.State
		}
	}
	return "not known"
}

// moved are the camaster's names as a node's DNS answers them: the CNAME, and who
// is the CA of both datacenters.
func moved(at string) (names []string) {
	for _, question := range []dns.Question{
		{Name: "puppet-camaster.example.net.", Qtype: dns.TypeCNAME},
		{Name: "_x-puppet-ca._tcp.datacenter1.example.net.", Qtype: dns.TypeSRV},
		{Name: "_x-puppet-ca._tcp.datacenter2.example.net.", Qtype: dns.TypeSRV},
	} {
		q := new(dns.Msg)
		q.SetQuestion(question.Name, question.Qtype)
		r, err := dns.Exchange(q, at)
		if err != nil {
			names = append(names, err.Error())
			continue
		}
		var found []string
		for _, rr := range r.Answer {
			switch rr := rr.(type) {
			case *dns.CNAME:
				found = append(found, rr.Target)
			case *dns.SRV:
				found = append(found, rr.Target)
			}
		}
		names = append(names, strings.Join(found, " "))
	}
	return names
}

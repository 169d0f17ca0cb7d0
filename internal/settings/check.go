package settings

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/evidence/gather"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning" // it works, and will not always
	LevelError   Level = "error"   // it does not work
)

// Finding is one thing that Check has looked at.
type Finding struct {
	Level   Level  `json:"level"`
	Subject string `json:"subject"`
	Text    string `json:"text"` // what was seen, and what to do
}

func finding(l Level, subject, format string, args ...any) Finding {
	return Finding{l, subject, fmt.Sprintf(format, args...)}
}

// checkTime is how long each part of a check may take. A deep check of a puppetserver
// that has just started is the slowest.
const checkTime = 5 * time.Second

// Check looks whether the host is as the settings say. It changes nothing, and ends
// within a few seconds whatever hangs. Findings of one subject stand together.
func (s *Settings) Check(ctx context.Context) []Finding {
	checks := []struct {
		subject string
		of      func(context.Context) []Finding
	}{
		{"certificate", s.checkCertificate},
		{"crl", s.checkCRL},
		{"gossip", s.checkGossip},
		{"state", s.checkDirectories},
		{"commands", s.checkCommands},
		{"puppetserver", s.checkServices},
		{"ca", s.checkCA},
		{"postgresql", s.checkPostgreSQL},
		{"puppetdb", s.checkPuppetDB},
		{"http-client", s.checkHTTPClient},
		{"clock", func(context.Context) []Finding { return checkClock() }},
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	results := make([]chan []Finding, len(checks))
	for i, c := range checks {
		results[i] = make(chan []Finding, 1) // who hangs for ever can still send
		go func() { results[i] <- c.of(ctx) }()
	}
	// Those that heed the context end with it, and say more than this does.
	late := time.NewTimer(checkTime + 500*time.Millisecond)
	defer late.Stop()
	expired := false
	var all []Finding
	for i, c := range checks {
		if expired {
			select {
			case f := <-results[i]:
				all = append(all, f...)
			default:
				all = append(all, finding(LevelError, c.subject, "it cannot be looked at in %s: something hangs", checkTime))
			}
			continue
		}
		select {
		case f := <-results[i]:
			all = append(all, f...)
		case <-late.C:
			expired = true
			all = append(all, finding(LevelError, c.subject, "it cannot be looked at in %s: something hangs", checkTime))
		}
	}
	return all
}

// checkServices asks puppetserver, as the member will.
func (s *Settings) checkServices(ctx context.Context) []Finding {
	c := s.Gather()
	c.PuppetDB = "" // apart: one must not wait for the other
	c.Timeout = checkTime - time.Second
	g := gather.New(c)
	defer g.Close()
	e := g.Look(ctx)
	all := judgePuppetserver(e.Puppetserver, s.Puppet.URL, s.Roles.CA)
	if len(e.Code) == 0 {
		all = append(all, finding(LevelWarning, "code", "no environment in %s: set puppet.environments", s.Puppet.Environments))
	} else {
		all = append(all, judgeCode(e.Code))
	}
	return append(all, judgeJavaArgs(s.Puppetserver.Defaults))
}

func judgePuppetserver(p evidence.Puppetserver, url string, ca *CARole) []Finding {
	const subject = "puppetserver"
	switch {
	case p.State == "unreachable":
		return []Finding{finding(LevelError, subject, "%s: %s: start it, or set puppet.url", url, p.Detail)}
	case p.State != "running":
		return []Finding{finding(LevelError, subject, "%s: it is %s: see its log", url, strings.TrimSuffix(p.State+", "+p.Detail, ", "))}
	}
	var all []Finding
	switch {
	case p.Compiles == nil && p.CompileDetail == "":
		all = append(all, finding(LevelWarning, subject, "%s runs, and a node request through a JRuby takes longer than the check: its JRubies may all be busy", url))
	case p.Compiles == nil:
		all = append(all, finding(LevelWarning, subject, "%s runs; whether it compiles is not known: %s", url, p.CompileDetail))
	case !*p.Compiles:
		all = append(all, finding(LevelError, subject, "%s says that it runs, and a node request fails: %s", url, p.CompileDetail))
	default:
		all = append(all, finding(LevelOK, subject, "%s runs and compiles", url))
	}
	if ca != nil && ca.Mode == Hot && !p.CAService {
		all = append(all, finding(LevelError, "ca", "puppetserver's CA service is off, and with `mode: hot` it is on everywhere: "+
			"turn it on in ca.cfg and restart puppetserver once the CA's files are here, or write `mode: service`"))
	}
	return all
}

func judgeCode(code []evidence.Environment) Finding {
	unknown := ""
	for _, e := range code {
		if e.Revision == "" {
			unknown = e.Name
		}
	}
	if unknown != "" {
		return finding(LevelWarning, "code", "nothing says which revision environment %s has: a standby with older code cannot be told; deploy by git or r10k, or write a file REVISION", unknown)
	}
	return finding(LevelOK, "code", "%d environments, each with its revision", len(code))
}

// checkPuppetDB asks PuppetDB, and reads whether a hot one can start against a standby.
func (s *Settings) checkPuppetDB(ctx context.Context) []Finding {
	db := s.Roles.PuppetDB
	if db == nil {
		return nil
	}
	g := gather.New(gather.Config{
		Certname: s.Certname, Cert: s.Puppet.Cert, Key: s.Puppet.Key, Authority: s.Puppet.Authority,
		PuppetDB: db.URL, PuppetDBMode: string(db.Mode), Timeout: checkTime - time.Second,
	})
	defer g.Close()
	all := []Finding{judgePuppetDB(*g.Look(ctx).PuppetDB, db)}
	if db.Mode == Hot {
		all = append(all, judgeMigrate(db.Config))
	}
	return all
}

func judgePuppetDB(p evidence.PuppetDB, db *PuppetDBRole) Finding {
	const subject = "puppetdb"
	switch {
	case p.State == "running" && p.Error == "":
		return finding(LevelOK, subject, "%s runs, %d commands wait", db.URL, p.Queue)
	case p.State == "stopped" && db.Mode == Service:
		return finding(LevelOK, subject, "%s is stopped, as it is on a standby with `mode: service`", db.URL)
	case p.State == "stopped":
		return finding(LevelError, subject, "%s: nobody listens there, and with `mode: hot` it runs everywhere: start it, or set roles.puppetdb.url", db.URL)
	case p.State == "unreachable":
		return finding(LevelError, subject, "%s: %s: set roles.puppetdb.url", db.URL, p.Error)
	}
	return finding(LevelError, subject, "%s: it is %s: %s", db.URL, p.State, p.Error)
}

package settings

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// caFiles are those without which puppetserver makes a CA of its own, or does not start
// (initialize! in certificate_authority.clj).
var caFiles = []string{"ca_crt.pem", "ca_key.pem", "ca_crl.pem", "inventory.txt", "serial"}

// checkCA looks at the CA's files and at ca.cfg.
func (s *Settings) checkCA(ctx context.Context) []Finding {
	const subject = "ca"
	ca := s.Roles.CA
	if ca == nil {
		return nil
	}
	config, err := readConfig(s.Puppet.CAConfig)
	if err != nil {
		return []Finding{finding(LevelError, subject, "%s: set puppet.ca_cfg", err)}
	}
	on := serviceOn(config)
	var all []Finding
	if len(ca.Replicas) == 0 {
		all = append(all, finding(LevelWarning, subject, "roles.ca.replicas is empty: no other master gets a copy of the CA from here, and none can take over"))
	}
	var missing []string
	for _, name := range caFiles {
		if _, err := os.Stat(filepath.Join(s.Puppet.CADir, name)); err != nil {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) == len(caFiles) && on:
		return append(all, finding(LevelError, subject, "there is no CA in %s and the CA service is on in %s: puppetserver makes a new CA at its next start, which nobody trusts; "+
			"turn it off there until this host has its copy", s.Puppet.CADir, s.Puppet.CAConfig))
	case len(missing) == len(caFiles):
		return append(all, finding(LevelWarning, subject, "there is no CA in %s yet: the member copies it from the camaster, whose roles.ca.replicas must name %s", s.Puppet.CADir, s.Certname))
	case len(missing) > 0:
		return append(all, finding(LevelError, subject, "%s has no %s: puppetserver does not start with it, and it cannot become the CA; put the files back, "+
			"or move the directory away to have it copied anew", s.Puppet.CADir, strings.Join(missing, ", ")))
	}
	dir, err := cadir.Open(s.Puppet.CADir, cadir.Options{Mode: string(ca.Mode), State: s.State})
	if err != nil {
		return append(all, finding(LevelError, subject, "%s", err))
	}
	set, err := dir.Look(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return append(all, finding(LevelWarning, subject, "to verify %s takes longer than a check may: `puppetsrv-member status` says what a running member has found", s.Puppet.CADir))
	case err != nil:
		return append(all, finding(LevelError, subject, "%s: it cannot become the CA with this", err))
	}
	sealed := ""
	if is, err := dir.Sealed(); err == nil && is {
		sealed = ", sealed"
	}
	return append(all, finding(LevelOK, subject, "whole and verified, %d certificates, next serial %04X%s", set.Signed, set.Serial, sealed))
}

// caService is a line of ca.cfg that is not a comment.
var caService = regexp.MustCompile(`(?m)^\s*puppetlabs\.services\.ca\.certificate-authority-service/certificate-authority-service\b`)

// serviceOn says whether puppetserver's CA service is on.
func serviceOn(config []byte) bool { return caService.Match(config) }

// readOnlyDisk keeps Check from writing.
type readOnlyDisk struct{ store.Dir }

func (readOnlyDisk) Write(string, []byte) error { return nil }

// PostgresConfig is what internal/postgres needs, all but its Disk. Only hosts with the role
// have one.
func (s *Settings) PostgresConfig() postgres.Config {
	p := s.Roles.PostgreSQL
	return postgres.Config{
		Socket: p.Socket, Port: uint16(p.Port), User: p.User, Database: p.Database, OSUser: p.OSUser,
		Data: p.Data, ConfigDir: p.Config, BinDir: p.BinDir, Start: p.Start, Stop: p.Stop,
		Promote: p.Promote, TriggerFile: p.Trigger, PromoteCommand: p.PromoteCommand,
		Fence: p.Fence, Rejoin: p.Rejoin, Source: p.Source, MaxLag: p.MaxLag,
	}
}

// checkPostgreSQL looks at the database, as the member will.
func (s *Settings) checkPostgreSQL(ctx context.Context) []Finding {
	const subject = "postgresql"
	if s.Roles.PostgreSQL == nil {
		return nil
	}
	c := s.PostgresConfig()
	c.Disk = readOnlyDisk{store.Dir(s.State)}
	service, err := postgres.NewService(c)
	if err != nil { // one mistake a line
		var all []Finding
		for line := range strings.Lines(err.Error()) {
			all = append(all, finding(LevelError, subject, "%s", strings.TrimPrefix(strings.TrimSpace(line), subject+": ")))
		}
		return all
	}
	defer service.Close()
	all := judgePostgreSQL(service.Evidence(ctx), s.Roles.PostgreSQL)
	if all[0].Level != LevelOK {
		return all
	}
	advice, err := service.Advise(ctx)
	if err != nil {
		all = append(all, finding(LevelWarning, subject, "its settings: %s", err))
	}
	for _, a := range advice {
		all = append(all, finding(LevelWarning, subject, "%s", a))
	}
	return all
}

// judgePostgreSQL returns at least one finding.
func judgePostgreSQL(e evidence.PostgreSQL, p *PostgreSQLRole) []Finding {
	const subject = "postgresql"
	reach := fmt.Sprintf("set roles.postgresql.socket, port, user and os_user; psql -h %s -p %d -U %s as %s shows it too", p.Socket, p.Port, p.User, p.OSUser)
	switch {
	case e.Role == "stopped" && e.Error != "":
		return []Finding{finding(LevelError, subject, "it is stopped, and %s", e.Error)}
	case e.Role == "stopped":
		return []Finding{finding(LevelWarning, subject, "it is stopped; the member starts it when it has decided")}
	case e.Role != "primary" && e.Role != "standby":
		return []Finding{finding(LevelError, subject, "it cannot be asked: %s: %s", e.Error, reach)}
	case e.Role == "standby" && !e.Streaming:
		return []Finding{finding(LevelError, subject, "a standby that receives nothing from its primary: see its log, and primary_conninfo")}
	case e.Error != "":
		return []Finding{finding(LevelWarning, subject, "%s, and: %s", e.Role, e.Error)}
	}
	all := []Finding{finding(LevelOK, subject, "%s, timeline %d, system %s", e.Role, e.Timeline, e.System)}
	if lag, known := e.Lag(); known && lag > p.MaxLag {
		all = append(all, finding(LevelWarning, subject, "%d bytes behind, more than max_lag: a failover to this host is refused", lag))
	}
	return all
}

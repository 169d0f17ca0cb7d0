package settings

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Settings) roles(m *mapping, host Host) {
	// Each is read even if it is not there: what it could have is then known.
	if ca := s.caRole(m.mapping("ca")); m.has("ca") {
		s.Roles.CA = ca
	}
	if p := m.mapping("postgresql"); m.has("postgresql") {
		s.Roles.PostgreSQL = s.postgresqlRole(p, host)
	}
	if db := s.puppetdbRole(m.mapping("puppetdb")); m.has("puppetdb") {
		s.Roles.PuppetDB = db
	}
	names := make(map[string]bool)
	for i, n := range m.items("hooks", "a list of hooks, each with name, open and close") {
		h := m.r.mapping(fmt.Sprintf("%s[%d]", m.join("hooks"), i), n)
		if h.broken {
			continue
		}
		hook := readHook(h)
		if names[hook.Name] {
			h.errf("name", "%s is there twice", hook.Name)
		}
		if hook.Name != "" {
			names[hook.Name] = true
		}
		s.Roles.Hooks = append(s.Roles.Hooks, hook)
	}
	m.done()
}

func (s *Settings) caRole(m *mapping) *CARole {
	ca := &CARole{Mode: Hot, Gap: 1000, Rate: 32 << 20}
	read(m, "mode", &ca.Mode, oneOf(Hot, Service))
	readList(m, "replicas", "the certnames of the other masters that may become camaster", &ca.Replicas, hostName)
	read(m, "gap", &ca.Gap, number(1, 1_000_000))
	read(m, "rate", &ca.Rate, size(64<<10, 10<<30))
	read(m, "infra_crl", &ca.InfraCRL, truth)
	m.done()
	return ca
}

func (s *Settings) puppetdbRole(m *mapping) *PuppetDBRole {
	db := &PuppetDBRole{
		Mode: Hot, URL: "https://" + net.JoinHostPort(s.Certname, strconv.Itoa(puppetdbPort)),
		Config:  layouts[s.Layout].puppetdb,
		Start:   []string{"systemctl", "start", "puppetdb"},
		Stop:    []string{"systemctl", "stop", "puppetdb"},
		Timeout: 2 * time.Minute,
	}
	read(m, "mode", &db.Mode, oneOf(Hot, Service))
	read(m, "url", &db.URL, address)
	read(m, "config", &db.Config, absolute)
	readCommand(m, "start", &db.Start)
	readCommand(m, "stop", &db.Stop)
	read(m, "timeout", &db.Timeout, duration(time.Second, time.Hour))
	m.done()
	return db
}

// taken are names that services have already.
var taken = []string{"ca", "postgresql", "puppetdb", "puppetserver"}

func readHook(m *mapping) Hook {
	h := Hook{Timeout: 30 * time.Second}
	read(m, "name", &h.Name, word)
	if !m.has("name") {
		m.errf("name", "required: a word for people, as dashboard")
	}
	if slices.Contains(taken, h.Name) {
		m.errf("name", "%s is another service's", h.Name)
	}
	readCommand(m, "open", &h.Open)
	readCommand(m, "close", &h.Close)
	for _, key := range []string{"open", "close"} {
		if !m.has(key) {
			m.errf(key, "required: %s", commandLike)
		}
	}
	readCommand(m, "standby", &h.Standby)
	readCommand(m, "check", &h.Check)
	read(m, "timeout", &h.Timeout, duration(100*time.Millisecond, time.Hour))
	m.done()
	return h
}

func (s *Settings) postgresqlRole(m *mapping, host Host) *PostgreSQLRole {
	p := &PostgreSQLRole{
		Port: 5432, User: "postgres", Database: "postgres", OSUser: "postgres",
		Promote: PromoteFunction, Fence: FenceStop, Rejoin: RejoinPrint, MaxLag: 1 << 20,
	}
	read(m, "data", &p.Data, absolute)
	if at, err := findCluster(host.Files, p.Data); err == nil {
		p.Socket, p.Data, p.Config, p.BinDir = at.socket, at.data, at.config, at.bindir
		p.Start, p.Stop = at.start, at.stop
	} else if !m.has("data") {
		m.errf("data", "%s: write it", err)
	} else {
		p.Config = p.Data
	}
	read(m, "socket", &p.Socket, absolute)
	read(m, "port", &p.Port, number(1, 65535))
	read(m, "user", &p.User, role)
	read(m, "database", &p.Database, role)
	read(m, "os_user", &p.OSUser, word)
	read(m, "config", &p.Config, absolute)
	read(m, "bindir", &p.BinDir, absolute)
	for _, needed := range []struct{ key, value string }{{"bindir", p.BinDir}, {"socket", p.Socket}} {
		if needed.value == "" && !m.has(needed.key) && p.Data != "" {
			m.errf(needed.key, "required, for %s is none of the usual places", p.Data)
		}
	}
	read(m, "promote", &p.Promote, oneOf(PromoteFunction, PromoteTrigger, PromoteCommand))
	read(m, "trigger", &p.Trigger, absolute)
	readCommand(m, "promote_command", &p.PromoteCommand)
	needs(m, "trigger", p.Promote == PromoteTrigger, "promote: trigger", "promote_trigger_file's path")
	needs(m, "promote_command", p.Promote == PromoteCommand, "promote: command", commandLike)
	read(m, "fence", &p.Fence, oneOf(FenceStop, FenceReadOnly))
	readCommand(m, "start", &p.Start)
	readCommand(m, "stop", &p.Stop)
	read(m, "rejoin", &p.Rejoin, oneOf(RejoinPrint, RejoinRun))
	read(m, "source", &p.Source, conninfo)
	if p.Rejoin == RejoinRun && !m.has("source") {
		m.errf("source", "required with `rejoin: run`: how the camaster's database is reached, as \"host=puppet-camaster.example.net user=replicator\"")
	}
	read(m, "max_lag", &p.MaxLag, size(0, 1<<50))
	m.done()
	return p
}

// needs says that a key belongs to one setting of another, and only to that.
func needs(m *mapping, key string, wanted bool, setting, what string) {
	switch {
	case wanted && !m.has(key):
		m.errf(key, "required with `%s`: %s", setting, what)
	case !wanted && m.has(key):
		m.errf(key, "it is used with `%s` alone: add that, or take this out", setting)
	}
}

// role is the name of a user or of a database in PostgreSQL.
func role(s string) (string, error) {
	if len(s) > 63 {
		return "", fmt.Errorf("%q: at most 63 bytes", clip(s))
	}
	return s, nil
}

// conninfo is libpq's, and must not have a password: commands made of it are shown by ps
// and in logs.
func conninfo(s string) (string, error) {
	lower := strings.ToLower(s)
	uri := strings.HasPrefix(lower, "postgres://") || strings.HasPrefix(lower, "postgresql://")
	switch {
	case strings.ContainsAny(s, "\n\r"):
		return "", fmt.Errorf("a connection string is one line")
	case !uri && !strings.Contains(s, "="):
		return "", fmt.Errorf("%q: a connection string as \"host=puppet-camaster.example.net user=replicator\"", clip(s))
	case hasPassword(lower, uri):
		return "", fmt.Errorf("a password in it would be seen in logs and by every user of this host: put it into a file and write passfile=FILE")
	}
	return s, nil
}

func hasPassword(lower string, uri bool) bool {
	if uri {
		_, rest, _ := strings.Cut(lower, "://")
		authority, query, _ := strings.Cut(rest, "?")
		user, _, at := strings.Cut(authority, "@")
		return at && strings.Contains(user, ":") || strings.Contains("&"+query, "&password=")
	}
	for _, f := range strings.FieldsFunc(strings.ReplaceAll(lower, " =", "="), func(c rune) bool { return c == ' ' || c == '\t' }) {
		if k, _, ok := strings.Cut(f, "="); ok && (k == "password" || k == "sslpassword") {
			return true
		}
	}
	return false
}

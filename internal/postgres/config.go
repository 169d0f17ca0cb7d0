package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// Disk keeps the service's files, as store.Dir does.
type Disk interface {
	// Read wraps fs.ErrNotExist where there is no such file.
	Read(name string) ([]byte, error)
	// Write replaces a file; it is on disk when Write returns nil.
	Write(name string, data []byte) error
}

// Ways to promote, to fence and to rejoin.
const (
	PromoteSQL     = "pg_promote" // SELECT pg_promote(); the default
	PromoteTrigger = "trigger"    // create TriggerFile, the server's promote_trigger_file; up to PostgreSQL 15
	PromoteCommand = "command"    // run PromoteCommand

	FenceStop     = "stop"      // stop the server; the default
	FenceReadOnly = "read-only" // default_transaction_read_only, which a session can set off

	RejoinPrint = "print" // say the commands that overwrite data; the default
	RejoinRun   = "run"   // run them
)

// Config says where the server is and how it is handled. Data and Disk are required.
type Config struct {
	Socket   string // directory of the unix socket; default /var/run/postgresql
	Port     uint16 // default 5432
	User     string // a superuser of the database; default postgres
	Database string // to connect to; default postgres
	// OSUser is who the server's programs run as, and as whom the socket is connected
	// (peer authentication), if this process is root; default postgres. Otherwise both
	// are done as who this process is.
	OSUser string

	Data      string // PGDATA, absolute
	ConfigDir string // where postgresql.conf is; "": in Data
	BinDir    string // of pg_ctl, pg_controldata and so on; default the newest that is found

	// Start and Stop run as this process's user; default pg_ctl as OSUser. Stop has to be
	// a fast one. Where a service manager starts the server, these have to be its
	// commands: what pg_ctl starts belongs to this process's unit, and ends with it.
	Start, Stop role.Command

	Promote        string       // one of the constants
	TriggerFile    string       // absolute, for PromoteTrigger
	PromoteCommand role.Command // for PromoteCommand
	Fence          string       // one of the constants
	Rejoin         string       // one of the constants
	// Source is the conninfo, key=value, of the camaster's server: a rejoined one streams
	// from it, and it is asked every time how far it has written. Its user needs
	// REPLICATION, for pg_rewind also what PostgreSQL's page on that says. A password
	// comes from a passfile only.
	Source string
	// GuardOpen keeps standby.signal in place while the server is open, too: then every
	// start of it is read-only until it is promoted again, which also makes one new
	// timeline each. Mind that base backups have the file then.
	GuardOpen bool

	MaxLag uint64 // bytes, for evidence; default 1 MiB

	LookTimeout    time.Duration // of one look; default 2 s
	StartTimeout   time.Duration // crash recovery included; default 5 min
	StopTimeout    time.Duration // of a fast stop, which is made a hard one then; default 1 min
	PromoteTimeout time.Duration // default 1 min
	RejoinTimeout  time.Duration // of pg_rewind or pg_basebackup; default 12 h

	Disk Disk
}

// binDirs are where Debian and the upstream packages for Red Hat have the programs.
var binDirs = [...]string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"}

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	for _, d := range []struct {
		v   *string
		def string
	}{
		{&c.Socket, "/var/run/postgresql"}, {&c.User, "postgres"}, {&c.Database, "postgres"}, {&c.OSUser, "postgres"},
		{&c.Promote, PromoteSQL}, {&c.Fence, FenceStop}, {&c.Rejoin, RejoinPrint},
	} {
		if *d.v == "" {
			*d.v = d.def
		}
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.LookTimeout, 2 * time.Second}, {&c.StartTimeout, 5 * time.Minute}, {&c.StopTimeout, time.Minute},
		{&c.PromoteTimeout, time.Minute}, {&c.RejoinTimeout, 12 * time.Hour},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Port == 0 {
		c.Port = 5432
	}
	if c.MaxLag == 0 {
		c.MaxLag = 1 << 20
	}
	if c.BinDir == "" {
		c.BinDir = findBinDir()
	}
	return c
}

// findBinDir is the directory of the newest pg_controldata; "" if there is none.
func findBinDir() string {
	best, version := "", -1
	for _, pattern := range binDirs {
		found, _ := filepath.Glob(filepath.Join(pattern, "pg_controldata")) // the pattern is good
		for _, f := range found {
			dir := filepath.Dir(f)
			name := strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "pgsql-")
			if v, err := strconv.Atoi(name); err == nil && v > version {
				best, version = dir, v
			}
		}
	}
	if best != "" {
		return best
	}
	if f, err := exec.LookPath("pg_controldata"); err == nil {
		if f, err = filepath.EvalSymlinks(f); err == nil {
			return filepath.Dir(f)
		}
	}
	return ""
}

// Validate says all that is wrong with c, and what would be right. It looks at nothing
// but c and whether the programs are there: the data directory may be missing yet.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, v ...any) { errs = append(errs, fmt.Errorf("postgresql: "+format, v...)) }
	one := func(name, v string, of ...string) {
		if !slices.Contains(of, v) {
			bad("%s is %q: it has to be one of %s", name, v, strings.Join(of, ", "))
		}
	}
	absolute := func(name, v string) {
		if v != "" && !filepath.IsAbs(v) {
			bad("%s is %q: it has to be an absolute path", name, v)
		}
	}
	if c.Data == "" {
		bad("data is missing: it is the data directory, such as /var/lib/postgresql/15/main")
	}
	for _, p := range []struct{ name, v string }{
		{"socket", c.Socket}, {"data", c.Data}, {"config_dir", c.ConfigDir}, {"bindir", c.BinDir}, {"trigger", c.TriggerFile},
	} {
		absolute(p.name, p.v)
	}
	if strings.HasPrefix(c.Socket, "@") {
		bad("socket is %q: it has to be a directory in the file system", c.Socket)
	}
	if filepath.Clean(c.Data) == "/" {
		bad("data is %q: it has to be a directory of the server's own", c.Data)
	}
	one("promote", c.Promote, PromoteSQL, PromoteTrigger, PromoteCommand)
	one("fence", c.Fence, FenceStop, FenceReadOnly)
	one("rejoin", c.Rejoin, RejoinPrint, RejoinRun)
	if c.Promote == PromoteTrigger && c.TriggerFile == "" {
		bad("trigger is missing: with promote: trigger it is the server's promote_trigger_file")
	}
	if c.Promote == PromoteCommand && len(c.PromoteCommand) == 0 {
		bad("promote_command is missing: with promote: command it is what promotes the server")
	}
	for _, cmd := range []struct {
		name string
		argv role.Command
	}{{"start", c.Start}, {"stop", c.Stop}, {"promote_command", c.PromoteCommand}} {
		if len(cmd.argv) > 0 {
			if _, err := exec.LookPath(cmd.argv[0]); err != nil {
				bad("%s: %w: it has to be a program and its arguments", cmd.name, err)
			}
		}
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{{"look", c.LookTimeout}, {"start", c.StartTimeout}, {"stop", c.StopTimeout}, {"promote", c.PromoteTimeout}, {"rejoin", c.RejoinTimeout}} {
		if d.v < 10*time.Millisecond {
			bad("the time-out of %s is %s: it has to be 10ms or more", d.name, d.v)
		}
	}
	if c.BinDir == "" {
		bad("bindir is missing, and pg_controldata was not found: it is the directory of PostgreSQL's programs, such as /usr/lib/postgresql/15/bin")
	} else {
		need := []string{"pg_controldata", "pg_ctl"}
		if c.Rejoin == RejoinRun {
			need = append(need, "pg_rewind", "pg_basebackup")
		}
		for _, program := range need {
			if fi, err := os.Stat(filepath.Join(c.BinDir, program)); err != nil || fi.IsDir() {
				bad("bindir %q has no %s: it has to be the directory of the server's programs, not of psql alone", c.BinDir, program)
			}
		}
	}
	if c.Source != "" {
		if _, err := parseSource(c.Source); err != nil {
			bad("source: %w", err)
		}
	} else if c.Rejoin == RejoinRun {
		bad("source is missing: with rejoin: run it is the camaster's server, such as host=puppet-camaster.example.net user=replicator")
	}
	if c.Disk == nil {
		errs = append(errs, errors.New("postgresql: Config.Disk is nil"))
	}
	return errors.Join(errs...)
}

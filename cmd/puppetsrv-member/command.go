package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/alecthomas/kong"

	"github.com/puppetsrv/puppetsrv/internal/member"
	"github.com/puppetsrv/puppetsrv/internal/release"
	"github.com/puppetsrv/puppetsrv/internal/settings"
)

const description = "The daemon on each Puppet master, and the commands that ask it."

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3 // a gate that is closed, a plan that cannot be, a drain that was not idle in time
	exitUnreachable = 5 // no member runs
)

const exitCodes = `Exit codes: 0 done, 1 any other error, 2 wrong usage or a mistake in the file,
3 refused (a closed gate, a check with errors, not idle in time), 5 no member runs.
`

// grammar is the command line.
type grammar struct {
	Config string `short:"c" default:"/etc/puppetsrv/member.yaml" type:"path" placeholder:"FILE" help:"The member's file (${default})."`

	Run     runCommand     `cmd:"" default:"1" help:"Run the daemon (default)."`
	Check   checkCommand   `cmd:"" help:"Say what is wrong with the file and with the host."`
	Status  statusCommand  `cmd:"" help:"Say how the member, the role and the host are."`
	Plan    planCommand    `cmd:"" help:"Print the steps by which the role would become open, closed or standby; do nothing."`
	Drain   drainCommand   `cmd:"" help:"Have the nodes list this host last, as before a restart of puppetserver."`
	Undrain undrainCommand `cmd:"" help:"End a drain."`
	Gate    gateCommand    `cmd:"" help:"For a unit, before it starts a service: succeed once that may start, and make sure that it starts closed unless the role is to be open."`
	Leave   leaveCommand   `cmd:"" help:"Take this host out of the cluster for good, and end the member."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// environment is where a command reads and writes.
type environment struct {
	ctx         context.Context
	out, errout io.Writer
	config      string
}

// failure is an error with an exit code. An empty text prints nothing.
type failure struct {
	code int
	text string
}

func (f *failure) Error() string { return f.text }

func fail(code int, format string, v ...any) error { return &failure{code, fmt.Sprintf(format, v...)} }

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string, out, errout io.Writer) int {
	var g grammar
	exited := -1
	parser, err := kong.New(&g,
		kong.Name("puppetsrv-member"), kong.Description(description), kong.Writers(out, errout),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 80}),
		kong.Help(func(o kong.HelpOptions, c *kong.Context) error {
			if err := kong.DefaultHelpPrinter(o, c); err != nil {
				return err
			}
			if c.Selected() == nil {
				fmt.Fprint(c.Stdout, "\n"+exitCodes)
			}
			return nil
		}),
	)
	if err != nil {
		panic(err) // the grammar itself is wrong: any test shows it
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err == nil {
		err = command.Run(&environment{ctx, out, errout, g.Config})
	} else {
		err = fail(exitUsage, "%v\nsee `puppetsrv-member --help`", err)
	}
	return verdict(ctx, err, errout)
}

// verdict prints an error and turns it into an exit code.
func verdict(ctx context.Context, err error, errout io.Writer) int {
	var f *failure
	code := exitFailed
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &f):
		code = f.code
	case errors.Is(err, member.ErrNoMember):
		code = exitUnreachable
	case ctx.Err() != nil:
		fmt.Fprintln(errout, "puppetsrv-member: interrupted")
		return 130
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(errout, "puppetsrv-member: "+text)
	}
	return code
}

// settings reads the file.
func (e *environment) settings() (*settings.Settings, error) {
	s, err := settings.Load(e.config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(exitUsage, "%s does not exist: write it, or name another one with --config", e.config)
	}
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	return s, nil
}

// local is the member that runs on this host.
func (e *environment) local() (*member.Local, error) {
	s, err := e.settings()
	if err != nil {
		return nil, err
	}
	return member.NewLocal(s.Socket), nil
}

func (e *environment) say(format string, v ...any) error {
	_, err := fmt.Fprintf(e.out, format+"\n", v...)
	return err
}

func (e *environment) json(v any) error {
	encoder := json.NewEncoder(e.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

type versionCommand struct{}

func (versionCommand) Run(e *environment) error { return e.say("puppetsrv-member %s", release.Version) }

type checkCommand struct {
	Timeout time.Duration `default:"10s" help:"How long it may take."`
	Strict  bool          `help:"Let warnings fail too."`
}

func (c checkCommand) Run(e *environment) error {
	s, err := e.settings()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	bad := 0
	for _, f := range s.Check(ctx) {
		if f.Level == settings.LevelError || c.Strict && f.Level == settings.LevelWarning {
			bad++
		}
		if err := e.say("%-7s  %s: %s", f.Level, f.Subject, f.Text); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fail(exitRefused, "%d of these are to be put right", bad)
	}
	return nil
}

type drainCommand struct {
	Reason  string        `required:"" help:"Why; everybody sees it."`
	For     time.Duration `placeholder:"DURATION" help:"How long, as 30m. Default: until undrain, or until the member ends."`
	Wait    bool          `help:"Return when every node knows, caches have forgotten, and no agent is connected."`
	Settle  time.Duration `default:"6s" help:"How long answers live in caches: the zone's ttl and a little."`
	Timeout time.Duration `default:"5m" help:"How long to wait at most; then exit code 3."`
}

func (c drainCommand) Run(e *environment) error {
	local, err := e.local()
	if err != nil {
		return err
	}
	r, err := local.Drain(e.ctx, member.DrainRequest{
		Reason: c.Reason, For: c.For.Seconds(), Wait: c.Wait, Settle: c.Settle.Seconds(), Patience: c.Timeout.Seconds(),
	})
	if err != nil {
		return err
	}
	if c.Wait && !r.Idle {
		return fail(exitRefused, "drained, but not idle: %s", r.Detail)
	}
	return e.say("%s", r.Detail)
}

type undrainCommand struct{}

func (undrainCommand) Run(e *environment) error {
	local, err := e.local()
	if err != nil {
		return err
	}
	r, err := local.Undrain(e.ctx)
	if err != nil {
		return err
	}
	return e.say("%s", r.Detail)
}

type gateCommand struct {
	Service string        `arg:"" enum:"puppetserver,postgresql,puppetdb" help:"One of ${enum}."`
	Wait    time.Duration `default:"60s" help:"How long to wait for a gate that may still open."`
}

func (c gateCommand) Run(e *environment) error {
	local, err := e.local()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Wait)
	defer cancel()
	for {
		g, err := local.Gate(ctx, c.Service)
		switch {
		case err == nil && g.Allowed:
			return e.say("%s may start: %s", c.Service, g.Reason)
		case err == nil:
			err = fail(exitRefused, "%s may not start: %s", c.Service, g.Reason)
		case !errors.Is(err, member.ErrNoMember): // which may be about to start
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

type leaveCommand struct{}

func (leaveCommand) Run(e *environment) error {
	local, err := e.local()
	if err != nil {
		return err
	}
	if err := local.Leave(e.ctx); err != nil {
		return err
	}
	return e.say("this host has left the cluster, and its member ends: disable its unit")
}

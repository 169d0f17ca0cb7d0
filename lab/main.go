//go:build linux

// Lab keeps the promises of this project with real programs: it makes two datacenters of
// network namespaces, with puppetserver, PuppetDB, PostgreSQL, the Puppet agent and NSD from
// Debian's packages, runs scenarios on them, and prints a table of what was expected and
// what was seen. See docs/lab.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Run     runCommand     `cmd:"" default:"withargs" help:"Run scenarios, on a new stack that ends with them, or on the one that runs."`
	List    listCommand    `cmd:"" help:"List the scenarios."`
	Up      upCommand      `cmd:"" help:"Start a stack and leave it running."`
	Enter   enterCommand   `cmd:"" help:"Run a command, or a shell, on a host of the running stack."`
	Down    downCommand    `cmd:"" help:"End the running stack."`
	Install installCommand `cmd:"" help:"Install the packages that a stack is made of, and no more."`
	Hold    holdCommand    `cmd:"" hidden:""`
}

func main() {
	if done, code := initProcess(); done {
		os.Exit(code)
	}
	var c commands
	k := kong.Parse(&c, kong.Name("lab"), kong.Description("The real Puppet stack on one machine."), kong.UsageOnError())
	err := k.Run()
	var exit exitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		os.Exit(exit.code)
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// exitError ends the program with a code and no more words.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// source is this project's directory, from which the lab is started.
func source() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "lab", "main.go")); err != nil {
		return "", fmt.Errorf("%s is not the project's directory: use `make lab`", dir)
	}
	return dir, nil
}

// rundir is where a stack has its files. LAB_DIR lets several run beside each other.
func rundir(source string) string {
	if dir := os.Getenv("LAB_DIR"); dir != "" {
		return dir
	}
	return filepath.Join(source, "run", "lab")
}

// logs is where the logs of all processes are, for people.
func logs(source string) string { return filepath.Join(rundir(source), "hosts", "*", "log") }

// possible says what this machine lacks.
func possible() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the lab needs root, for network namespaces and the packages' users")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("the lab needs Debian 12: %w", err)
	}
	return nil
}

// installCommand installs what run and up would install.
type installCommand struct{}

func (installCommand) Run() error {
	if err := possible(); err != nil {
		return err
	}
	return install()
}

// listCommand prints the scenarios.
type listCommand struct{}

func (listCommand) Run() error {
	for _, s := range scenarios {
		fmt.Printf("%-18s %s\n", s.name, s.title)
	}
	return nil
}

// runCommand runs scenarios.
type runCommand struct {
	Scenario []string `arg:"" optional:"" help:"Only these."`
	Table    string   `help:"Also write the table to this file, in Markdown."`
}

func (c runCommand) Run() error {
	chosen, err := choose(c.Scenario)
	if err != nil {
		return err
	}
	src, err := prepare()
	if err != nil {
		return err
	}
	running, err := load(src)
	switch {
	case err != nil:
		return err
	case running != nil && os.Getenv(roleVariable) == "" && len(c.Scenario) > 0:
		return attach(running, os.Args)
	case running != nil && os.Getenv(roleVariable) == "":
		return fmt.Errorf("a stack runs: name a scenario to run on it, or end it with `make lab-down`")
	}
	return isolated(func(ctx context.Context) error { return runScenarios(ctx, src, chosen, c.Table) })
}

// prepare makes sure that a stack can be made.
func prepare() (src string, err error) {
	if err := possible(); err != nil {
		return "", err
	}
	if src, err = source(); err != nil {
		return "", err
	}
	return src, install()
}

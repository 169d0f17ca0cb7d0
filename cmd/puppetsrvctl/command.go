package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"
)

const description = "Shows what the nodes of a puppetsrv cluster believe, and moves the camaster."

// flags are those of every command.
type flags struct {
	Server   string   `env:"PUPPETSRV_SERVER" placeholder:"URL" help:"The node to ask: unix:///PATH or https://HOST:8153. Default: unix://${socket}, if that exists."`
	Output   string   `short:"o" enum:"table,json" default:"table" help:"For people (table) or for programs (json: the API's own objects)."`
	Timeout  duration `default:"10s" help:"How long each request may take."`
	Cert     string   `env:"PUPPETSRV_CERT" type:"path" placeholder:"FILE" help:"Client certificate, for https. Default: this host's, from Puppet's ssldir."`
	Key      string   `env:"PUPPETSRV_KEY" type:"path" placeholder:"FILE" help:"Its private key."`
	CA       string   `name:"ca" env:"PUPPETSRV_CA" type:"path" placeholder:"FILE" help:"The CA's certificate. Default: certs/ca.pem in the ssldir."`
	CRL      string   `name:"crl" env:"PUPPETSRV_CRL" type:"path" placeholder:"FILE" help:"The CA's revocation list. Default: crl.pem in the ssldir, if the CA is from there."`
	SSLDir   string   `name:"ssldir" type:"path" placeholder:"DIR" help:"Puppet's ssldir. Default: /etc/puppetlabs/puppet/ssl."`
	Certname string   `placeholder:"NAME" help:"Which certificate of the ssldir. Default: the only one with a private key."`
}

// grammar is the command line.
type grammar struct {
	flags

	Status     statusCommand     `cmd:"" help:"One screen: who is camaster, do all nodes agree, what is not well."`
	Masters    mastersCommand    `cmd:"" help:"Every master, with its verdict for each datacenter."`
	Camaster   camasterCommand   `cmd:"" help:"Show or set the camaster."`
	Failover   failoverCommand   `cmd:"" help:"The camaster is lost: make another master the camaster."`
	Switchover switchoverCommand `cmd:"" help:"Hand the camaster over to another master, and lose nothing."`
	Rejoin     rejoinCommand     `cmd:"" help:"Make a former camaster a standby."`
	History    historyCommand    `cmd:"" help:"Who wrote what, when and why, the newest first."`
	Drain      drainCommand      `cmd:"" help:"List a master last: it gets no new work."`
	Undrain    undrainCommand    `cmd:"" help:"End a drain."`
	Zone       zoneCommand       `cmd:"" help:"The DNS records of one datacenter, or of all, as the node answers them."`
	Cluster    clusterCommand    `cmd:"" help:"The members of the gossip pool."`
	Keys       keysCommand       `cmd:"" help:"Show or change the gossip keys."`
	Watch      watchCommand      `cmd:"" help:"Print events as they happen, until Ctrl-C."`
	Version    versionCommand    `cmd:"" help:"Print the version of this program."`
	Completion completionCommand `cmd:"" help:"Print a completion script for a shell."`
	Complete   completeCommand   `cmd:"" hidden:"" help:"List the words that may stand in a place, for the completion scripts."`
}

// parser is made for each run: kong writes into the grammar.
func parser(g *grammar) (*kong.Kong, error) {
	return kong.New(g,
		kong.Name("puppetsrvctl"),
		kong.Description(description),
		kong.Vars{"socket": defaultSocket},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 80, NoExpandSubcommands: true}),
		kong.Help(help),
	)
}

// help is kong's, with the exit codes below that of the whole program.
func help(o kong.HelpOptions, c *kong.Context) error {
	if err := kong.DefaultHelpPrinter(o, c); err != nil {
		return err
	}
	if c.Selected() == nil {
		fmt.Fprint(c.Stdout, "\n"+exitCodes)
	}
	return nil
}

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string) int {
	var g grammar
	p, err := parser(&g)
	if err != nil {
		panic(err) // the grammar itself is wrong: any test shows it
	}
	c, err := p.Parse(args)
	if err == nil {
		s := newSession(ctx, g.flags)
		defer s.close()
		err = c.Run(s)
	} else {
		var parse *kong.ParseError
		command := "puppetsrvctl"
		if errors.As(err, &parse) && parse.Context != nil {
			if n := parse.Context.Selected(); n != nil {
				command = n.FullPath()
			}
		}
		err = fail(exitUsage, "%v\nsee `%s --help`", err, command)
	}
	code, text := verdict(ctx, err)
	fmt.Fprint(os.Stderr, complaint(text))
	return code
}

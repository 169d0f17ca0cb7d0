//go:build linux

package netns_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// runMaster is the process of a stub master.
func runMaster(args []string) error {
	flags := flag.NewFlagSet("master", flag.ContinueOnError)
	listen := flags.String("listen", "", "")
	cert, key := flags.String("cert", "", ""), flags.String("key", "", "")
	cadir := flags.String("cadir", "", "")
	localCA, hostCRL := flags.String("localcacert", "", ""), flags.String("hostcrl", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var options []stub.MasterOption
	if *cadir != "" {
		options = append(options, stub.WithCADir(*cadir))
	}
	if *hostCRL != "" {
		options = append(options, stub.WithHostCRL(*localCA, *hostCRL))
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	m, err := stub.NewMaster(*listen, &stub.Identity{Certificate: pair}, options...)
	if err != nil {
		return err
	}
	fmt.Println("serving", m.Addr())
	<-end
	return m.Close()
}

// runHolder is a process that holds a directory. It has memory enough that the kernel is
// busy with its end for a while, after which its files are closed.
func runHolder(args []string) error {
	memory := make([]byte, 128<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	lock, err := store.LockDir(args[0])
	if err != nil {
		return err
	}
	fmt.Println("holds")
	time.Sleep(patience)
	runtime.KeepAlive(memory)
	return lock.Unlock()
}

// runThief is a program of somebody who has stolen the gossip key and a master's
// certificate. It is a member as nodes are, allows itself everything, and then says
// all that a node can say: another camaster, a drain, and that all masters of
// datacenter1 are down. What the others answered goes to stdout, and it stays.
func runThief(args []string) error {
	flags := flag.NewFlagSet("thief", flag.ContinueOnError)
	name, bind, join := flags.String("name", "", ""), flags.String("bind", "", ""), flags.String("join", "", "")
	cert, key, ca := flags.String("cert", "", ""), flags.String("key", "", ""), flags.String("ca", "", "")
	ringFile, state := flags.String("ring", "", ""), flags.String("state", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	identity, err := trust.LoadIdentity(*cert, *key)
	if err != nil {
		return err
	}
	authority, err := trust.Open(*ca, "")
	if err != nil {
		return err
	}
	ring, err := gossip.OpenKeyRing(*ringFile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*state, 0o700); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	met := make(chan struct{}, 1)
	c, err := cluster.Start(cluster.Config{
		Name: *name, Role: cluster.RoleNode, Identity: identity, Authority: authority,
		Policy: cluster.Policy{Admit: func(string) bool { return true }, Signers: func(string) bool { return true }, Join: []string{*join}},
		Disk:   store.Dir(*state),
		Gossip: &gossip.Config{Bind: netip.MustParseAddrPort(*bind), Profile: gossip.Local, KeyRing: ring},
		Log:    stderrLog{},
		Changed: func() {
			select {
			case met <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	defer c.Close()
	report := cluster.Report{Release: "stolen", Datacenter: "datacenter1"}
	for _, m := range []string{"m1.example.net.", "m2.example.net."} {
		report.Masters = append(report.Masters, cluster.Observed{Host: m, Down: true, Reason: health.ReasonTimeout, Since: time.Now()})
	}
	c.Publish(report)

	// Both nodes, and their reports: it hears everything.
	for fresh := 0; fresh < 3; {
		select {
		case <-met:
		case <-end:
			return nil
		}
		fresh = 0
		for _, p := range c.Peers() {
			if p.Fresh {
				fresh++
			}
		}
	}
	answers := make(map[string][]string)
	for _, change := range []cluster.Change{
		{Key: "camaster", Value: json.RawMessage(`{"host":"m2.example.net.","from":"m1.example.net."}`), Actor: "operator.example.net", Reason: "theft", Forced: true},
		{Key: "drain/m1.example.net.", Value: json.RawMessage(`{"drained":true}`), Actor: "operator.example.net", Reason: "theft"},
	} {
		// A node that has not heard of this member yet cannot answer it.
		for answered := false; !answered; {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			r, err := c.Write(ctx, change, cluster.WaitAll)
			cancel()
			if err != nil {
				return err
			}
			answered = true
			answers[change.Key] = nil
			for _, a := range r.Answers {
				said := "acknowledged"
				if a.Err != nil {
					said = a.Err.Error()
				}
				answered = answered && said != "no answer in time"
				answers[change.Key] = append(answers[change.Key], a.Name+": "+said)
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		return err
	}
	<-end
	return nil
}

// stderrLog writes what a program's log would have.
type stderrLog struct{}

func (stderrLog) Debugf(string, ...any)              {}
func (l stderrLog) Infof(format string, v ...any)    { l.put(format, v) }
func (l stderrLog) Warningf(format string, v ...any) { l.put(format, v) }
func (l stderrLog) Errorf(format string, v ...any)   { l.put(format, v) }

func (stderrLog) put(format string, v []any) { fmt.Fprintf(os.Stderr, format+"\n", v...) }

package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// runMaster is the process of one master: `playground master`.
func runMaster(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("playground master", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "", "`address` to listen on")
	cert := flags.String("cert", "", "certificate `file`")
	key := flags.String("key", "", "key `file`")
	ca := flags.Bool("ca", false, "show the CA service as running")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return fmt.Errorf("loading the master's certificate: %w", err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	m, err := stub.NewMaster(*listen, &stub.Identity{Certificate: pair})
	if err != nil {
		return err
	}
	m.SetCA(*ca)
	fmt.Fprintf(stdout, "serving https://%v/status/v1/simple\n", m.Addr())
	<-end
	return m.Close()
}

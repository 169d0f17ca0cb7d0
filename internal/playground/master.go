package main

import (
	"crypto/tls"
	"errors"
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
	cadir := flags.String("cadir", "", "`directory` of the CA that it serves and signs with")
	caCfg := flags.String("ca-cfg", "", "`file` that says whether the CA service is on; needs -cadir")
	localCA := flags.String("localcacert", "", "the CA's certificate, a `file`; needs -hostcrl")
	hostCRL := flags.String("hostcrl", "", "the host's CRL, a `file`; needs -localcacert")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (*localCA == "") != (*hostCRL == "") || *caCfg != "" && *cadir == "" {
		return errors.New("-localcacert and -hostcrl need each other, -ca-cfg needs -cadir")
	}
	var options []stub.MasterOption
	if *cadir != "" {
		options = append(options, stub.WithCADir(*cadir))
	}
	if *caCfg != "" {
		options = append(options, stub.WithCACfg(*caCfg))
	}
	if *hostCRL != "" {
		options = append(options, stub.WithHostCRL(*localCA, *hostCRL))
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return fmt.Errorf("loading the master's certificate: %w", err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	m, err := stub.NewMaster(*listen, &stub.Identity{Certificate: pair}, options...)
	if err != nil {
		return err
	}
	if *cadir == "" {
		m.SetCA(*ca)
	}
	fmt.Fprintf(stdout, "serving https://%v/status/v1/simple\n", m.Addr())
	<-end
	return m.Close()
}

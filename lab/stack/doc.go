// Package stack is two datacenters of real programs on one machine: puppetserver, PuppetDB,
// PostgreSQL, the Puppet agent, NSD, and this project's own. A host is a network namespace
// with directories of its own in place of /etc, /run and most of /var; its services are
// started as their units would start them.
//
//	datacenter1  ns1  node
//	             m1   camaster: puppetserver with the CA, PuppetDB, PostgreSQL's primary
//	             m2   puppetserver
//	             a1   agent
//	datacenter2  ns2  node
//	             m3   may become camaster: as m1, a standby
//	             m4   puppetserver
//	             a2   agent
//	elsewhere    ns3  NSD, a secondary of the nodes
//
// The package makes, starts, breaks and mends. What is to be seen then is for scenarios.
package stack

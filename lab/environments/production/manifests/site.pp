# What every host of the lab gets.
class { 'puppetsrv::agent':
  domain   => 'example.net',
  server   => 'puppet-camaster.example.net',
  networks => {
    'datacenter1' => ['10.1.0.0/16'],
    'datacenter2' => ['10.2.0.0/16'],
  },
}

# Each host exports a file, and has those of all.
@@file { "/var/lib/lab/exported-${trusted['certname']}":
  content => "${trusted['certname']}\n",
  tag     => 'lab',
}
File <<| tag == 'lab' |>>

# A run that waits between two files for /var/lib/lab/go, and says so by /var/lib/lab/waits.
file { '/var/lib/lab/files':
  ensure => directory,
}
file { '/var/lib/lab/files/01':
  source => 'puppet:///modules/lab/01',
}
exec { 'the lab says go':
  command  => 'touch /var/lib/lab/waits; until [ -e /var/lib/lab/go ]; do sleep 0.02; done',
  path     => ['/usr/bin', '/bin'],
  provider => shell,
  timeout  => 120,
}
['02', '03', '04', '05'].each |$n| {
  file { "/var/lib/lab/files/${n}":
    source => "puppet:///modules/lab/${n}",
  }
}

# @summary Points this host's agent at its own datacenter's masters, by SRV records.
#
# Sets `server`, `http_connect_timeout`, `srv_domain` and `use_srv_records` in the puppet.conf that the run has
# read, in this order, so that SRV records are not used before all else is in place; the rest of the file
# stays as it is. The next run uses them. A host whose datacenter is not known keeps the puppet.conf it has,
# and says so as a warning in each run.
#
# @param domain
#   The domain of the datacenters: srv_domain is `DATACENTER.DOMAIN`.
# @param server
#   Where the agent goes when DNS gives it nothing at all: the name of the camaster.
# @param datacenter
#   The datacenter of this host; default: the fact `datacenter`.
# @param srv_domain
#   The whole srv_domain, for a datacenter whose domain is not `DATACENTER.DOMAIN`.
# @param http_connect_timeout
#   How long the agent waits for a master that says nothing: seconds, or with one of Puppet's units. `false`
#   leaves the setting alone; Puppet's own default is two minutes.
# @param networks
#   The networks of each datacenter, for the fact: written to networks.yaml, and in effect from the next run on. Without
#   it that file is not managed.
# @param manage_directory
#   Whether the directory of networks.yaml is managed with it. `false` if something else does.
# @param section
#   The section of puppet.conf. `agent` is what `puppet agent` and `puppet ssl` read, and it goes before `main`.
# @param conf
#   The puppet.conf, by its absolute path; default: the one that the run has read.
#
# @example
#   class { 'puppetsrv::agent':
#     domain => 'example.net',
#     server => 'puppet-camaster.example.net',
#   }
class puppetsrv::agent (
  Puppetsrv::Domain $domain,
  Puppetsrv::Domain $server,
  Optional[Puppetsrv::Datacenter] $datacenter = undef,
  Optional[Puppetsrv::Domain] $srv_domain = undef,
  Variant[Boolean[false], Puppetsrv::Duration] $http_connect_timeout = '10s',
  Optional[Hash[Puppetsrv::Datacenter, Array[Puppetsrv::Network]]] $networks = undef,
  Boolean $manage_directory = true,
  Enum['agent', 'main'] $section = 'agent',
  Optional[String[1]] $conf = undef,
) {
  $dir = $facts['os']['family'] ? {
    'windows' => 'C:/ProgramData/puppetsrv',
    default   => '/etc/puppetsrv',
  }

  if $networks {
    if $manage_directory {
      # Without a mode: on masters it has other files of puppetsrv.
      file { $dir:
        ensure => directory,
      }
    }
    file { "${dir}/networks.yaml":
      ensure  => file,
      content => epp('puppetsrv/networks.yaml.epp', { 'networks' => $networks }),
    }
  }

  # A site may have a fact of this name already, with anything in it: that must not fail the catalog.
  $place = $datacenter ? {
    undef   => $facts['datacenter'],
    default => $datacenter,
  }
  $found = $srv_domain ? {
    undef   => $place ? {
      Puppetsrv::Datacenter => "${place}.${domain}",
      default               => undef,
    },
    default => $srv_domain,
  }

  if $found {
    puppetsrv_setting { "${section}/server":
      conf  => $conf,
      value => $server,
    }
    if $http_connect_timeout {
      puppetsrv_setting { "${section}/http_connect_timeout":
        conf    => $conf,
        value   => String($http_connect_timeout),
        require => Puppetsrv_setting["${section}/server"],
        before  => Puppetsrv_setting["${section}/srv_domain"],
      }
    }
    puppetsrv_setting { "${section}/srv_domain":
      conf    => $conf,
      value   => $found,
      require => Puppetsrv_setting["${section}/server"],
    }
    puppetsrv_setting { "${section}/use_srv_records":
      conf    => $conf,
      value   => 'true',
      require => Puppetsrv_setting["${section}/srv_domain"],
    }
  } else {
    $why = $place ? {
      undef   => 'is not known',
      default => "cannot be \"${place}\"",
    }
    $address = $facts.dig('networking', 'ip') ? {
      undef   => $facts.dig('networking', 'ip6'),
      default => $facts.dig('networking', 'ip'),
    }
    $later = $networks ? {
      undef   => '',
      default => ' Networks that this run has written count from the next one on.',
    }
    notify { 'puppetsrv::agent':
      message  => "The datacenter of this host ${why}: puppet.conf stays as it is. Write its name to ${dir}/datacenter, or list a network of ${address} in ${dir}/networks.yaml.${later}",
      loglevel => warning,
    }
  }
}

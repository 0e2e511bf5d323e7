"""From what is asked for and what the hosts have, to hosts and alternates: functions, no input or output.

`request` says what is asked, `hosts` what there is, `filters` who may, `weighers` who should, `choose` who does.
"""

"""The numbers that the three papers print, in percent, as data. [pure]"""

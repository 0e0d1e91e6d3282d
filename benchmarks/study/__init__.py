"""The user study of Zakharov et al. 2019, section 4: people look for the fake among three videos of one person."""
